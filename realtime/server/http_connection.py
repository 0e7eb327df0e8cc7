"""HTTP/1 connections: bytes, keep-alive, pipelining and timeouts."""

from realtime.server.http_cycle import RequestCycle
from realtime.server.http_request import BadRequest, RequestHead, parse_head
from realtime.server.http_response import Response
from realtime.server.state import ServerState
from realtime.server.transport import Transport
from realtime.server.websocket_connection import WebSocketConnection

MAX_BLANK = 16
"""Bytes of empty lines before a request (RFC 9112, section 2.2)."""


class HTTPConnection:
    """Read requests off a transport, one cycle at a time."""

    __slots__ = ("_buffer", "_cycle", "_has_ended", "_searched", "server", "transport")

    def __init__(self, server: ServerState, transport: Transport) -> None:
        self.server = server
        self.transport = transport
        self._buffer = bytearray()
        self._searched = 0  # how much of the buffer holds no end of a head
        self._has_ended = False  # the client sends no more
        self._cycle: RequestCycle | None = None
        transport.receiver = self
        server.connections.add(self)
        server.timeouts.heads[self] = server.loop.time()

    # Called by the transport

    def data_received(self, data: bytes) -> None:
        """Read a request's head, or have the current cycle read its body."""
        if self._cycle is not None:
            self._cycle.data_received(data)
            return
        timeouts = self.server.timeouts
        if self.transport.pending:
            timeouts.idle.pop(self, None)
            self.keep(data)
            return
        buffer = self._buffer
        if not buffer:
            if self in timeouts.idle:
                del timeouts.idle[self]
                timeouts.heads[self] = self.server.loop.time()
            end = data.find(b"\r\n\r\n")
            if end > 0 and data[0] != 13:
                self._begin(data[:end], data[end + 4 :])
                return
        buffer += data
        self._scan()

    def _scan(self) -> None:
        """Begin with the request whose head the buffer holds, if it is complete."""
        buffer = self._buffer
        blank = _blank(buffer)
        if blank > MAX_BLANK:
            self.refuse(400, "Invalid line before the request.")
            return
        end = buffer.find(b"\r\n\r\n", max(self._searched, blank))
        if end >= 0:
            head, rest = bytes(buffer[blank:end]), bytes(buffer[end + 4 :])
            self._buffer, self._searched = bytearray(), 0
            self._begin(head, rest)
            return
        self._searched = max(0, len(buffer) - 3)
        if self._has_ended:
            self.transport.close()
        elif len(buffer) > self.server.limits.max_header_bytes:
            self.refuse(431, "The headers are too long.")

    def _begin(self, data: bytes, rest: bytes) -> None:
        server = self.server
        server.timeouts.heads.pop(self, None)
        try:
            if len(data) > server.limits.max_header_bytes:
                raise BadRequest(431, "The headers are too long.")
            head = parse_head(data, server.limits)
        except BadRequest as error:
            self.refuse(error.status, error.detail)
            return
        self.serve(head, rest)

    def serve(self, head: RequestHead, rest: bytes) -> None:
        """Begin with the answer; `rest` is what has come behind the head."""
        server = self.server
        if b"websocket" in head.upgrade:
            server.connections.discard(self)
            WebSocketConnection(server, self.transport, head).begin(rest)
        else:
            cycle = self._cycle = RequestCycle(self, head)
            cycle.begin(rest)
        if self._has_ended:
            self.transport.receiver.eof_received()

    def eof_received(self) -> None:
        """End once all requests that have been read whole are answered."""
        self._has_ended = True
        if self._cycle is None:
            if self._buffer:
                self._go_on()
            else:
                self.transport.close()  # after what is pending
        elif not self._cycle.body.is_complete:
            self.transport.abort()
        else:
            self._await_half_closed(self._cycle, -1)

    def _await_half_closed(self, cycle: RequestCycle, sent: int) -> None:
        # A half-closed client cannot be told from one that left, which would answer with a reset.
        # Keep the response while bytes still go out; otherwise abort after half_close_grace.
        transport = self.transport
        if transport.closed or cycle is not self._cycle:
            return
        if cycle.response.sent == sent and not transport.pending:
            transport.abort()
            return
        grace = self.server.limits.half_close_grace
        self.server.loop.call_later(grace, self._await_half_closed, cycle, cycle.response.sent)

    def peer_left(self, reset: bool) -> None:
        """Abort, unless a body is still to be read, or an answer has not gone out."""
        # With a request body still unread, an orderly end only says that it was sent whole.
        if reset or (self._cycle is not None and self._cycle.body.is_complete):
            self.transport.abort()

    def flushed(self) -> None:
        """Go on with a request that has waited for this; applications wait by themselves."""
        if self._cycle is None and self._buffer:
            self._go_on()

    def connection_lost(self) -> None:
        """Forget the connection, and tell the application of its current request."""
        timeouts = self.server.timeouts
        timeouts.heads.pop(self, None)
        timeouts.idle.pop(self, None)
        timeouts.bodies.pop(self, None)
        self.server.connections.discard(self)
        if self._cycle is not None:
            cycle, self._cycle = self._cycle, None
            cycle.connection_lost()

    # Called by the timeouts

    def timed_out(self) -> None:
        """Close: nothing has come for too long."""
        if self._cycle is not None:
            self.transport.abort()  # in the middle of a body
        elif self.is_idle:
            self.transport.close()
        else:
            self.refuse(408, "The request did not arrive in time.")

    # Called by the cycle

    def keep(self, data: bytes) -> None:
        """Keep bytes of the next request, which came while this one is being answered."""
        self._buffer += data
        if len(self._buffer) > self.server.limits.max_header_bytes:
            self.transport.pause_reading()

    def cycle_finished(self, cycle: RequestCycle, is_reusable: bool) -> None:
        """Go on with the next request after a whole response, or close."""
        if self._cycle is not cycle:
            return
        self._cycle = None
        server = self.server
        server.timeouts.bodies.pop(self, None)
        if self.transport.closed:
            return
        if not is_reusable or server.is_draining or (self._has_ended and not self._buffer):
            self._close(linger=not cycle.body.is_complete)
        elif self._buffer:
            self._go_on()
        else:
            server.timeouts.idle[self] = server.loop.time()

    def _go_on(self) -> None:
        # Not before the last answer has gone out: else those that a client asks for, and does not
        # read, would fill the memory.
        if not self.transport.pending:
            self.server.timeouts.heads[self] = self.server.loop.time()
            self.server.loop.call_soon(self._next)

    def _next(self) -> None:
        # Unless what came in this very turn has begun with it already.
        if self._cycle is None and self._buffer and not self.transport.closed:
            self.transport.resume_reading()
            self._scan()

    def refuse(self, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
        """Answer with an error of the server's own, in plain text, and close."""
        self.end_with(status, b"text/plain; charset=utf-8", detail.encode() + b"\n", *headers)

    def end_with(
        self, status: int, kind: bytes, body: bytes, *headers: tuple[bytes, bytes]
    ) -> None:
        """Answer with a body of this media type, and close."""
        response = Response(b"GET", 1, False)
        response.start(status, [(b"content-type", kind), *headers])
        self.transport.write(response.body(body, False))
        self._close(linger=True)

    def _close(self, *, linger: bool) -> None:
        self._buffer.clear()  # nothing else that has come is answered
        self.transport.close(linger=linger)

    @property
    def is_idle(self) -> bool:
        """Return whether no request is being read or answered; empty lines are none."""
        return self._cycle is None and not self._buffer.strip(b"\r\n")


def _blank(buffer: bytearray) -> int:
    """Return how many bytes of empty lines it begins with; too many where a line is invalid."""
    if buffer[0] not in b"\r\n":
        return 0
    size = len(buffer) - len(buffer.lstrip(b"\r\n"))
    is_cut = size == len(buffer)  # perhaps between CR and LF
    is_valid = (b"\r\n" * size).startswith(buffer[:size]) and (is_cut or size % 2 == 0)
    return size if is_valid else MAX_BLANK + 1
