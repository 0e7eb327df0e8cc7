"""HTTP/1 connections and the ASGI side of each request on them."""

import asyncio
import random
from typing import Any

from realtime.server import access_log as access
from realtime.server import scope
from realtime.server.disconnect import DisconnectEvent
from realtime.server.http_request import BadRequest, ChunkedBody, RequestHead, parse_head
from realtime.server.http_response import Response
from realtime.server.sendfile import FilePart, span
from realtime.server.state import ServerState
from realtime.server.timeouts import cancel_after
from realtime.server.transport import Transport
from realtime.server.websocket_connection import WebSocketConnection

Message = dict[str, Any]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HTTPConnection:
    """Reads requests off a transport, one exchange at a time."""

    __slots__ = ("_buffer", "_ended", "_exchange", "server", "transport")

    def __init__(self, server: ServerState, transport: Transport) -> None:
        self.server = server
        self.transport = transport
        self._buffer = bytearray()
        self._ended = False  # the client sends no more
        self._exchange: Exchange | None = None
        transport.receiver = self
        server.connections.add(self)
        server.timeouts.heads[self] = server.loop.time()

    # Called by the transport

    def data_received(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.data_received(data)
            return
        buffer = self._buffer
        if not buffer:
            if self in self.server.timeouts.idle:
                del self.server.timeouts.idle[self]
                self.server.timeouts.heads[self] = self.server.loop.time()
            end = data.find(b"\r\n\r\n")
            if end >= 0:
                self._request(data[:end], data[end + 4 :])
                return
        searched = max(0, len(buffer) - 3)
        buffer += data
        self._scan(searched)

    def _scan(self, searched: int) -> None:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", searched)
        if end >= 0:
            head, rest = bytes(buffer[:end]), bytes(buffer[end + 4 :])
            self._buffer = bytearray()
            self._request(head, rest)
        elif len(buffer) > self.server.limits.max_header_bytes:
            self.refuse(431, "The headers are too long.")

    def _request(self, data: bytes, rest: bytes) -> None:
        self.server.timeouts.heads.pop(self, None)
        if data.startswith(b"\r\n"):
            data = data[2:]  # RFC 9112, section 2.2: an empty line before a request is ignored
        try:
            if len(data) > self.server.limits.max_header_bytes:
                raise BadRequest(431, "The headers are too long.")
            head = parse_head(data, self.server.limits)
        except BadRequest as error:
            self.refuse(error.status, error.detail)
            return
        if head.upgrade == b"websocket":
            self.server.connections.discard(self)
            WebSocketConnection(self.server, self.transport, head).begin(rest)
            return
        exchange = self._exchange = Exchange(self, head)
        exchange.begin(rest)

    def eof_received(self) -> None:
        self._ended = True
        if self._exchange is None:
            self.transport.close()  # after what is pending
        elif not self._exchange.body_complete:
            self.transport.abort()
        else:
            self._await_half_closed(-1)

    def _await_half_closed(self, sent: int) -> None:
        """The client may have closed only its side and still be reading, or it may be gone: that
        looks the same. A quick answer gets through, and so does a long one as long as it flows:
        to a client that is gone it would meet a reset. A stream that says nothing is ended."""
        exchange, transport = self._exchange, self.transport
        if transport.closed or exchange is None:
            return
        if exchange.response.sent == sent and not transport.pending:
            transport.abort()
            return
        self.server.loop.call_later(
            self.server.limits.half_close_grace, self._await_half_closed, exchange.response.sent
        )

    def peer_left(self, reset: bool) -> None:
        # With a request body still unread, an orderly end only says that it was sent whole.
        if reset or self._exchange is None or self._exchange.body_complete:
            self.transport.abort()

    def flushed(self) -> None:
        pass

    def connection_lost(self) -> None:
        timeouts = self.server.timeouts
        timeouts.heads.pop(self, None)
        timeouts.idle.pop(self, None)
        timeouts.bodies.pop(self, None)
        self.server.connections.discard(self)
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.lost()

    # Called by the timeouts

    def timed_out(self) -> None:
        """Nothing has come for too long."""
        if self._exchange is not None:
            self.transport.abort()  # in the middle of a body
        elif self._buffer:
            self.refuse(408, "The request did not arrive in time.")
        else:
            self.transport.close()

    # Called by the exchange

    def keep(self, data: bytes) -> None:
        """Bytes of the next request, which came while this one is being answered."""
        self._buffer += data
        if len(self._buffer) > self.server.limits.max_header_bytes:
            self.transport.pause_reading()

    def finished(self, exchange: "Exchange", reusable: bool) -> None:
        """The exchange's response has been written."""
        if self._exchange is not exchange:
            return
        self._exchange = None
        self.server.timeouts.bodies.pop(self, None)
        if self.transport.closed:
            return
        if not reusable or self._ended or self.server.is_draining:
            self.transport.close(linger=not exchange.body_complete)
            return
        if self._buffer:
            self.server.timeouts.heads[self] = self.server.loop.time()
            self.server.loop.call_soon(self._next)
        else:
            self.server.timeouts.idle[self] = self.server.loop.time()

    def _next(self) -> None:
        if self._exchange is None and not self.transport.closed:
            self.transport.resume_reading()
            self._scan(0)

    def refuse(self, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
        """Answer with an error of the server's own, and close."""
        self.transport.write(error_response(status, detail, *headers))
        self.transport.close(linger=True)

    @property
    def is_idle(self) -> bool:
        """No request is being read or answered."""
        return self._exchange is None and not self._buffer


def error_response(status: int, detail: str, *headers: tuple[bytes, bytes]) -> bytes:
    """A complete response with the detail as plain text, after which the connection closes."""
    response = Response(b"GET", 1, False)
    plain = (b"content-type", b"text/plain; charset=utf-8")
    response.start(status, [plain, *headers])
    return response.body(detail.encode() + b"\n", False)


class Exchange:
    """One request, the application that answers it, and the response."""

    __slots__ = (
        "_continue",
        "_decoder",
        "_eager",
        "_ending",
        "_given",
        "_head",
        "_lane_refused",
        "_left",
        "_over",
        "_parts",
        "_size",
        "_started",
        "_tail",
        "_waiter",
        "body_complete",
        "connection",
        "gone",
        "lane",
        "response",
        "server",
        "task",
        "transport",
    )

    def __init__(self, connection: HTTPConnection, head: RequestHead) -> None:
        self.connection = connection
        self.server = connection.server
        self.transport = connection.transport
        self.lane = self.transport.renew_lane()
        self.gone = DisconnectEvent()
        self.response = Response(head.method, head.minor, head.keep_alive)
        self.body_complete = not head.has_body
        self.task: asyncio.Task[None] | None = None
        self._head = head
        self._decoder = ChunkedBody() if head.chunked else None
        self._left = head.content_length or 0
        self._parts: list[bytes] = []
        self._size = 0
        self._given = False  # the application has the whole body
        self._continue = head.expects_continue and not self.body_complete
        self._waiter: asyncio.Future[None] | None = None
        self._over = False  # nothing more can be sent
        self._ending = False  # shutting down: end the stream at the next boundary
        self._eager = False  # it has sent since it last waited
        self._lane_refused = False
        self._tail = b""  # the end of an event stream's body, to see where an event ends
        self._started = self.server.loop.time()

    def begin(self, rest: bytes) -> None:
        """Start the application; rest is what followed the head."""
        if rest:
            self.data_received(rest)
            if self.transport.closed:
                return
        server = self.server
        server.sessions.add(self)
        built = scope.build("http", self._head, self.transport, self.gone, server)
        self.task = server.loop.create_task(server.application(built, self.receive, self.send))
        self.task.add_done_callback(self._done)
        if server.http_timeout:
            server.loop.call_later(server.http_timeout, self._too_long)

    # The request's body

    def data_received(self, data: bytes) -> None:
        if self.body_complete:
            self.connection.keep(data)
            return
        if self._decoder is not None:
            try:
                parts, rest = self._decoder.feed(data)
            except BadRequest as error:
                self._bad_body(error)
                return
            self.body_complete = self._decoder.complete
        else:
            parts, rest = [data[: self._left]], data[self._left :]
            self._left -= len(parts[0])
            self.body_complete = not self._left
        if self._over:
            parts = []  # nobody will read it
        for part in parts:
            self._size += len(part)
        self._parts += parts
        timeouts = self.server.timeouts
        if self.body_complete:
            timeouts.bodies.pop(self.connection, None)
        elif self._size > self.server.limits.receive_bytes:
            self.transport.pause_reading()
            timeouts.bodies.pop(self.connection, None)
        elif self.connection in timeouts.bodies:
            del timeouts.bodies[self.connection]  # to the end of the queue
            timeouts.bodies[self.connection] = self.server.loop.time()
        if rest:
            self.connection.keep(rest)
        self._wake()

    def _bad_body(self, error: BadRequest) -> None:
        self._over = True
        if self.response.head_sent:
            self.transport.abort()
        else:
            self.connection.refuse(error.status, error.detail)
        self.gone.set()
        self._wake()
        self._cancel_later()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> Message:
        """ASGI's receive."""
        server = self.server
        while True:
            if self._parts or (self.body_complete and not self._given):
                body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                self._parts = []
                if self._size > server.limits.receive_bytes and not self._over:
                    self.transport.resume_reading()
                self._size = 0
                self._given = self.body_complete
                return {"type": "http.request", "body": body, "more_body": not self._given}
            if self._over:
                return {"type": "http.disconnect"}
            if not self._given:
                if self._continue:
                    self._continue = False
                    if not self.response.head_sent:
                        self.transport.write(CONTINUE)
                server.timeouts.bodies[self.connection] = server.loop.time()
            if self._waiter is not None and not self._waiter.done():
                raise RuntimeError("receive() is already being awaited.")
            waiter = self._waiter = server.loop.create_future()
            self._eager = False
            try:
                await waiter
            finally:
                if self._waiter is waiter:  # not when a cancelled receive() was replaced
                    self._waiter = None

    # The response

    async def send(self, message: Message) -> None:
        """ASGI's send: returns when the transport has taken everything."""
        kind = message["type"]
        if self._over:
            # The peer is gone. Let an application that does nothing but send notice.
            await asyncio.sleep(0)
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
            self.response.start(
                message["status"], message.get("headers", ()), self.server.server_header
            )
            if self.server.is_draining:
                self.response.close = True
            # With the body, if that comes in the same turn of the loop: one packet, and the length
            # is known. If it does not, the client need not wait for the first of it.
            self.server.loop.call_soon(self._send_head)
        elif kind == "http.response.zerocopysend" and self.transport.copies_files:
            await self._send_file(*span(message), message.get("more_body", False))
        else:
            raise ValueError(f"An HTTP application can't send {kind!r}.")

    def _send_head(self) -> None:
        ended = self.task is None or self.task.done()  # with an error, which has its own answer
        if not (ended or self._over or self.response.head_sent or self.transport.closed):
            self.transport.write(self.response.body(b"", True))

    def _write(self, body: bytes, more: bool) -> None:
        response, lane = self.response, self.lane
        opening = None
        if lane is not None and lane.is_armed:
            if lane.disarm(body) and more and not self._lane_refused:
                opening = lane
            else:
                self._lane_refused = True
        try:
            data = response.body(body, more)
        except RuntimeError:
            if response.head_sent:
                self.transport.abort()  # the client can't tell otherwise that it is broken
            raise
        if data:
            self.transport.write(data)
        if response.event_stream and body:
            self._tail = (self._tail + body)[-4:]
        if not more:
            self._finish()
            return
        if opening is not None and response.streamable and not self.transport.closed:
            opening.open(response.framing)
        if self._ending:
            self._end_stream()

    async def _send_file(self, fileno: int, offset: int, count: int, more: bool) -> None:
        response, transport = self.response, self.transport
        try:
            before, body, behind = response.file(count, more)
            if before:
                transport.write(before)
            if body:
                self._eager = False
                await transport.send_file(fileno, offset, count, self._progress)
        except (RuntimeError, EOFError):
            if response.head_sent:
                transport.abort()  # the client can't tell otherwise that it is broken
            raise
        if behind:
            transport.write(behind)
        if not more and not self._over:
            self._finish()

    def _progress(self, sent: int) -> None:
        self.response.sent += sent

    def _finish(self) -> None:
        """The response is complete."""
        self._over = True
        if self.lane is not None:
            self.lane.shut()
        self.gone.set()
        self._wake()
        self.log()
        response = self.response
        if response.short:
            access.logger.error("A response was shorter than its Content-Length.")
        self.connection.finished(self, self.body_complete and not response.close)

    def log(self) -> None:
        """Tell the access log."""
        server = self.server
        if server.action_logger:
            server.log_action(
                "http",
                "complete",
                self.transport.peer,
                path=access.redact(self._head.target.decode("ascii")),
                status=self.response.status,
                method=self._head.method.decode("ascii"),
                time_taken=server.loop.time() - self._started,
                size=self.response.sent,
            )

    # The end

    def lost(self) -> None:
        """The connection is over before the response."""
        if self._over:
            return
        self._over = True
        self.gone.set()
        self._wake()
        self.log()
        self._cancel_later()

    def _cancel_later(self) -> None:
        if self.task is not None and not self.task.done():
            cancel_after(self.server.limits.disconnect_timeout, self.task)

    def _too_long(self) -> None:
        if not self._over and self.task is not None:
            self._fail(503, "The application did not respond in time.")
            self.task.cancel()

    def _fail(self, status: int, detail: str) -> None:
        """End a response that the application did not."""
        if self.response.head_sent:
            self.transport.abort()
            return
        self.response = Response(self._head.method, self._head.minor, False)
        plain = (b"content-type", b"text/plain; charset=utf-8")
        self.response.start(status, [plain], self.server.server_header)
        self._write(detail.encode() + b"\n", False)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self.server.session_ended(self, task)
        if not self._over:
            if task.cancelled():
                self._fail(503, "The server is shutting down.")
            else:
                self._fail(500, "Internal server error.")

    # Shutting down

    def drain(self) -> None:
        """Event streams end at the end of an event, others when they are done."""
        self._ending = True
        if self.response.head_sent:
            self._end_stream()

    def _end_stream(self) -> None:
        response = self.response
        if self._over or not response.event_stream or not response.streamable:
            return
        if self._tail and not self._tail.endswith((b"\n\n", b"\r\r", b"\r\n\r\n")):
            return
        limits = self.server.limits
        delay = random.randint(limits.retry_min, max(limits.retry_min, limits.retry_max))
        self.transport.write(response.body(b"retry: %d\n\n" % delay, False))
        response.close = True
        self._finish()
        self._cancel_later()
