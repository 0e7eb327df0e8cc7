"""A connection beyond `max_connections`: it is told when to come back."""

from typing import Final

from realtime.server.counters import counters
from realtime.server.http_connection import HTTPConnection
from realtime.server.http_request import RequestHead
from realtime.server.state import ServerState
from realtime.server.transport import Transport

REFUSAL_SECONDS: Final = 2.0
"""Seconds in which the head of the request has to come."""

RETRY_AFTER: Final = b"5"
"""Seconds after which the client may come back."""

EVENT_STREAM: Final = b"text/event-stream"


class RefusedConnection(HTTPConnection):
    """Read the head of one request, if it comes in time, and answer that there is no room."""

    __slots__ = ("_timer",)

    def __init__(self, server: ServerState, transport: Transport) -> None:
        super().__init__(server, transport)
        server.connections.discard(self)  # it takes nobody's place
        server.timeouts.heads.pop(self)
        server.timeouts.refused.add(self)
        counters.handshake_refused("no_room")
        self._timer = server.loop.call_later(REFUSAL_SECONDS, self.give_up)

    def give_up(self) -> None:
        """Answer without knowing what is asked for."""
        self.refuse(503, "Too many connections.", (b"retry-after", RETRY_AFTER))

    def serve(self, head: RequestHead, rest: bytes) -> None:
        """Have an EventSource come back: it gives up for good at a status other than 200."""
        if head.method == b"GET" and any(EVENT_STREAM in value for value in head.get(b"accept")):
            retry = b"retry: %d\n" % self.server.limits.retry_delay()
            self.end_with(200, EVENT_STREAM, retry, (b"cache-control", b"no-store"))
        else:
            self.give_up()

    def end_with(
        self, status: int, kind: bytes, body: bytes, *headers: tuple[bytes, bytes]
    ) -> None:
        """Make room for another one, and answer."""
        self._leave()
        super().end_with(status, kind, body, *headers)

    def connection_lost(self) -> None:
        """Forget the connection."""
        self._leave()
        super().connection_lost()

    def _leave(self) -> None:
        self._timer.cancel()
        self.server.timeouts.refused.discard(self)
