"""What this server may offer in `scope["extensions"]`; more of it is not known above.

Other servers offer none of this: there, the functions here return None, or nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from realtime.server.disconnect import DisconnectEvent
from realtime.server.sendfile import FilePart

FASTLANE: Final = "realtime.lane"
DISCONNECT: Final = "realtime.disconnect"
SERVER: Final = "realtime.server"
SENDFILE: Final = "realtime.sendfile"
DENIAL_RESPONSE: Final = "websocket.http.response"  # ASGI's own

#: Make of a body what goes over a connection: a text frame, a chunk, or the same bytes. It is a
#: function of a module, never a bound method or a lambda: connections of one framing are a group.
Framing = Callable[[bytes], bytes]


class FastLane(Protocol):
    """Write to a connection without waiting, while nothing else is pending on it.

    What is written here and what is sent may not overtake each other: write only while no `send`
    is under way.
    """

    framing: Framing | None  # None while it is closed, or may not be used
    kind: "type[Group]"  # what writes to many lanes like this one

    def arm(self, body: bytes) -> None:
        """Open the lane once exactly this object has passed as the next part of the body."""

    def try_write(self, data: bytes) -> bool:
        """Write framed bytes now, all of them; False if nothing was taken."""

    def cork(self) -> None:
        """Keep what is taken until `uncork`, which follows without an `await`."""

    def uncork(self) -> None:
        """Write what was kept, with one system call; queue what the socket does not take."""


class Group(Protocol):
    """Write to many lanes of one kind; each has an index, that is not reused before `compact`."""

    def add(self, lane: Any) -> int:
        """Write to the lane from now on; return its index."""

    def remove(self, index: int) -> None:
        """Write to it no more."""

    def write(self, data: bytes, start: int, stop: int) -> list[int]:
        """Do what `try_write` does for the indexes from `start` to before `stop`.

        Return the indexes of those that took nothing, in order. Never raises.
        """

    def compact(self) -> list[int]:
        """Renumber from 0 without holes; return the old indexes of those left, in order."""


def fastlane(scope: Mapping[str, Any]) -> FastLane | None:
    """Return the connection's fast lane."""
    extension = _extension(scope, FASTLANE)
    lane: FastLane | None = extension["lane"] if extension else None
    return lane


def disconnect_event(scope: Mapping[str, Any]) -> DisconnectEvent | None:
    """Return the event that is set as soon as the peer has left."""
    extension = _extension(scope, DISCONNECT)
    event: DisconnectEvent | None = extension["event"] if extension else None
    return event


def server_state(scope: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is known of the server itself: `draining` is True while it shuts down."""
    return _extension(scope, SERVER) or {}


def file_part(scope: Mapping[str, Any]) -> Callable[[int, int, int], FilePart] | None:
    """Return what makes a part of a body that the kernel copies from a file.

    It is called with the file descriptor, the offset and the number of bytes.
    """
    extension = _extension(scope, SENDFILE)
    return extension["part"] if extension else None


def has_denial_response(scope: Mapping[str, Any]) -> bool:
    """Return whether a WebSocket handshake may be refused with an HTTP response."""
    return _extension(scope, DENIAL_RESPONSE) is not None


def _extension(scope: Mapping[str, Any], key: str) -> Any:
    return (scope.get("extensions") or {}).get(key)
