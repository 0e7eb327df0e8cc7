"""What this server may offer in `scope["extensions"]`; more of it is not known above.

Other servers offer none of this: there, the functions here return None, or nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from realtime.server.disconnect import DisconnectEvent
from realtime.server.sendfile import FilePart

FASTLANE: Final = "realtime.lane"
DISCONNECT: Final = "realtime.disconnect"
SERVER: Final = "realtime.server"
SENDFILE: Final = "realtime.sendfile"


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


def _extension(scope: Mapping[str, Any], key: str) -> Any:
    return (scope.get("extensions") or {}).get(key)
