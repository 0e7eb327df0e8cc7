"""One HTTP request, the application that answers it, and the response: ASGI's HTTP cycle."""

import asyncio
from enum import Enum
from typing import Any, Protocol

from realtime.server import scope
from realtime.server.access_log import logger, redact
from realtime.server.disconnect import DisconnectEvent
from realtime.server.http_body import RequestBody
from realtime.server.http_request import BadRequest, RequestHead
from realtime.server.http_response import Response
from realtime.server.sendfile import FilePart, span
from realtime.server.state import ServerState
from realtime.server.timeouts import cancel_after
from realtime.server.transport import Transport

Message = dict[str, Any]


class _Connection(Protocol):
    """What a cycle needs of its connection."""

    server: ServerState
    transport: Transport

    def keep(self, data: bytes) -> None:
        """Keep what follows the request."""

    def cycle_finished(self, cycle: "RequestCycle", is_reusable: bool) -> None:
        """Go on with the next request, or close."""

    def timed_out(self) -> None:
        """Close: the body has not arrived in time."""


class CycleState(Enum):
    """What the application may still do."""

    ACTIVE = "send"
    DRAINING = "send, but an event stream ends with its current event: the server shuts down"
    OVER = "nothing: the response is complete, or the connection is lost"


class RequestCycle:
    """Run the application for one request."""

    __slots__ = (
        *("_client", "_connection", "_eager", "_head", "_lane_refused", "_started", "_state"),
        *("_timer", "body", "gone", "lane", "response", "server", "task", "transport"),
    )

    def __init__(self, connection: _Connection, head: RequestHead) -> None:
        self.server = connection.server
        self.transport = connection.transport
        self.lane = self.transport.renew_lane()
        self.gone = DisconnectEvent()
        self.body = RequestBody(connection, head)
        self.response = Response(head.method, head.minor, head.keep_alive)
        self.task: asyncio.Task[None] | None = None
        self._connection = connection
        self._client = self.transport.peer
        self._head = head
        self._state = CycleState.DRAINING if self.server.is_draining else CycleState.ACTIVE
        self._eager = False  # it has sent since it last waited
        self._lane_refused = False
        self._started = self.server.loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, rest: bytes) -> None:
        """Start the application; `rest` is what followed the head."""
        if rest:
            self.data_received(rest)
            if self._state is CycleState.OVER or self.transport.closed:
                return
        server = self.server
        server.sessions.add(self)
        built = scope.build("http", self._head, self.transport, self.gone, server)
        self._client = built["client"]
        self.task = server.loop.create_task(server.application(built, self.body.receive, self.send))
        self.task.add_done_callback(self._application_ended)
        if server.http_timeout:
            self._timer = server.loop.call_later(server.http_timeout, self._too_long)

    def data_received(self, data: bytes) -> None:
        """Take what belongs to the body; the rest is the connection's."""
        rest = data
        if not self.body.is_complete:
            try:
                rest = self.body.data_received(data)
            except BadRequest as error:
                self._fail(error.status, error.detail)
                if self._state is CycleState.OVER:
                    self._cancel_later()
                return
        if rest:
            self._connection.keep(rest)

    # The response

    async def send(self, message: Message) -> None:
        """ASGI's send: returns when the transport has taken everything."""
        kind = message["type"]
        if self._state is CycleState.OVER:  # the peer is gone
            await self._let_notice()
        elif kind == "http.response.body":
            body = message.get("body", b"")
            more = message.get("more_body", False)
            if isinstance(body, FilePart) and self.transport.copies_files and body.take():
                await self._send_file(body.fileno, body.offset, body.size, more)
                return
            self._write(body, more)
            if not more:
                return
            if self.transport.pending:
                self._eager = False
                await self.transport.drain()
            elif self._eager:
                await asyncio.sleep(0)
            else:
                self._eager = True
        elif kind == "http.response.start":
            self._start(message)
            if self.response.is_event_stream and self.response.is_bodiless:
                self._end_at_head()
                await self.server.loop.create_future()  # ended as if the client had left
        elif kind == "http.response.zerocopysend" and self.transport.copies_files:
            await self._send_file(*span(message), message.get("more_body", False))
        else:
            raise ValueError(f"An HTTP application can't send {kind!r}.")

    async def _let_notice(self) -> None:
        await asyncio.sleep(0)  # an application may do nothing but send; what it left behind ends
        if self.task is not None and self.task.done():
            raise asyncio.CancelledError

    def _start(self, message: Message) -> None:
        response, server = self.response, self.server
        response.start(message["status"], message.get("headers", ()), server.server_header)
        # RFC 9112, section 9.6: what is left of a body would be taken for the next request.
        if server.is_draining or not self.body.is_complete:
            response.close = True
        self.body.owes_continue = False
        # With the body, if that comes in the same turn of the loop: one packet, and the length
        # is known. If it does not, the client need not wait for the first of it.
        server.loop.call_soon(self._send_head)

    def _send_head(self) -> None:
        has_ended = self.task is None or self.task.done()  # with an error, which has its own answer
        over = self._state is CycleState.OVER or self.transport.closed
        if not (has_ended or over or self.response.is_head_sent):
            if self.response.is_bodiless:
                self._end_at_head()
            else:
                self.transport.write(self.response.body(b"", True))
                if self._state is CycleState.DRAINING:
                    self._end_stream()

    def _end_at_head(self) -> None:
        # RFC 9110, section 9.3.2: what makes the body is not begun, or ended as when a client
        # leaves: the next request must not wait for a source that perhaps never ends.
        self._write(b"", False)
        self._cancel_later()

    def _write(self, body: bytes, more: bool) -> None:
        response, lane = self.response, self.lane
        if response.is_bodiless and more:
            self._end_at_head()
            return
        opening = None
        if lane is not None and lane.is_armed:
            if lane.disarm(body) and more and not self._lane_refused:
                opening = lane
            else:
                self._lane_refused = True
        try:
            data = response.body(body, more)
        except (RuntimeError, TypeError):
            self._broken()
            raise
        if data:
            self.transport.write(data)
        if not more:
            self._finish()
            return
        if opening is not None and response.is_streamable and not self.transport.closed:
            opening.open(response.framing)
        if self._state is CycleState.DRAINING:
            self._end_stream()

    def _broken(self) -> None:
        if self.response.is_head_sent:
            self.transport.abort()  # the client can't tell otherwise that it is broken

    async def _send_file(self, fileno: int, offset: int, count: int, more: bool) -> None:
        response, transport = self.response, self.transport
        try:
            before, is_sent, after = response.file(count, more)
            if before:
                transport.write(before)
            if is_sent:
                self._eager = False
                await transport.send_file(fileno, offset, count, self._file_progress)
        except (RuntimeError, EOFError):
            self._broken()
            raise
        if after:
            transport.write(after)
        if not more and self._state is not CycleState.OVER:
            self._finish()

    def _file_progress(self, sent: int) -> None:
        self.response.sent += sent

    # The end

    def _finish(self) -> None:
        """Hand the connection back: the response is complete."""
        self._end()
        if self.lane is not None:
            self.lane.shut()
        response = self.response
        if response.is_short:
            logger.error("A response was shorter than its Content-Length.")
        self._connection.cycle_finished(self, self.body.is_complete and not response.close)

    def _end(self) -> None:
        self._state = CycleState.OVER
        if self._timer is not None:
            self._timer.cancel()  # it would keep the request's headers
        self.gone.set()
        self.body.close()
        self._log()

    def _log(self) -> None:
        server, head, response = self.server, self._head, self.response
        if server.action_logger:
            details: dict[str, Any] = {
                "path": redact(head.target.decode("ascii")),
                "status": response.status,
                "method": head.method.decode("ascii"),
                "time_taken": server.loop.time() - self._started,
                "size": response.sent,
            }
            server.log_action("http", "complete", self._client, **details)

    def connection_lost(self) -> None:
        """Tell the application that the connection is over before the response."""
        if self._state is not CycleState.OVER:
            self._end()
            self._cancel_later()

    def _cancel_later(self) -> None:
        if self.task is not None and not self.task.done():
            cancel_after(self.server.limits.disconnect_timeout, self.task)

    def _too_long(self) -> None:
        self._fail(503, "The application did not respond in time.")
        self._cancel_later()

    def _fail(self, status: int, detail: str) -> None:
        """End a response that the application did not."""
        if self.response.is_head_sent:
            self.transport.abort()
            return
        self.response = Response(self._head.method, self._head.minor, False)
        plain = (b"content-type", b"text/plain; charset=utf-8")
        self.response.start(status, [plain], self.server.server_header)
        self._write(detail.encode() + b"\n", False)

    def _application_ended(self, task: "asyncio.Task[None]") -> None:
        error = self.server.session_ended(self, task)
        if self._state is CycleState.OVER:
            return
        if error is None and task.cancelled():
            self._fail(503, "The server is shutting down.")
            return
        if error is None:
            target = self._head.target.decode("ascii")
            logger.error("The application returned before its response was complete: %s", target)
        self._fail(500, "Internal server error.")

    # Shutting down

    def drain(self) -> None:
        """End an event stream at the end of an event; other responses end by themselves."""
        if self._state is CycleState.ACTIVE:
            self._state = CycleState.DRAINING
            if self.response.is_head_sent:
                self._end_stream()

    def _end_stream(self) -> None:
        response = self.response
        if not response.is_between_events:
            return
        retry = b"retry: %d\n" % self.server.limits.retry_delay()
        self.transport.write(response.body(retry, False))
        response.close = True
        self._finish()
        self._cancel_later()
