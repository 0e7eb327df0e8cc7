"""The server's fast lane, as seen from here: events straight to the socket, encoded once.

`realtime.server` offers a lane in the ASGI scope. Other servers don't, and then the awaited path
serves alone. The lane takes bytes only while nothing else is pending on the connection.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from ..events.event import Event
from ..streaming.sse import encode_event
from ..websocket.messages import event_frame
from .fanout import Group

EXTENSION: Final = "realtime.lane"


class Lane(Protocol):
    """What the server offers for one connection; see `realtime.server.lane`."""

    framing: str | None
    group_type: type[Group] | None

    def arm(self, body: bytes) -> None:
        """Open once exactly this object has passed as the next part of the body."""

    def write(self, payload: bytes) -> bool:
        """Write to the socket at once; False if nothing was taken."""


def find_lane(scope: Mapping[str, Any]) -> Lane | None:
    """The connection's lane, where the server offers one."""
    extension = (scope.get("extensions") or {}).get(EXTENSION)
    return extension["lane"] if extension else None


class EventLane:
    """Pushes events of one topic in the form that the connection's framing asks for."""

    __slots__ = ("_encoders", "_lane")

    def __init__(self, lane: Lane, encoders: Mapping[str, Callable[[Event], bytes]]) -> None:
        self._lane = lane
        self._encoders = encoders

    def push(self, *events: Event) -> bool:
        """Write the events to the socket at once and whole; False if that can't be done now."""
        lane = self._lane
        encoder = self._encoders.get(lane.framing)  # type: ignore[arg-type]
        if encoder is None:
            return False
        return lane.write(b"".join([event.encoded(encoder) for event in events]))

    def direct(self) -> tuple[Lane, Callable[[Event], bytes]] | None:
        """The lane itself and the form it takes, once it is open."""
        encoder = self._encoders.get(self._lane.framing)  # type: ignore[arg-type]
        return None if encoder is None else (self._lane, encoder)


def encode_event_chunk(event: Event) -> bytes:
    """An SSE event in the chunked transfer coding of HTTP/1.1 (RFC 9112, section 7.1)."""
    body = event.encoded(encode_event)
    return b"%x\r\n%b\r\n" % (len(body), body)


SSE_ENCODERS: Final = {"chunked": encode_event_chunk, "identity": encode_event}
WEBSOCKET_ENCODERS: Final = {"websocket": event_frame}
