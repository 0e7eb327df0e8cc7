"""The Origin of a WebSocket handshake or a cross-origin stream (RFC 6454, RFC 6455 section 10.2).

Browsers send cookies along with a WebSocket handshake from any site, and no CORS rule stops them:
without this check every page a user visits could open a socket in the user's name.
"""

from urllib.parse import urlsplit

from ..conf import settings
from ..utils.asgi import Scope, header

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


def origin_allowed(scope: Scope) -> bool:
    """Whether the request comes from this site, from an allowed one, or from no browser at all."""
    origin = header(scope, b"origin")
    if origin is None:
        return True  # only browsers send it, and browsers always do
    allowed = settings.ALLOWED_ORIGINS
    if "*" in allowed or origin in allowed:
        return True
    # A proxy may end TLS before us, so the scheme we see says nothing: host and port decide.
    parts = _split(origin)
    if parts is None:
        return False
    host = (header(scope, b"host") or "").lower()
    default = _DEFAULT_PORTS.get(parts[0])
    candidates = {f"{parts[1]}:{parts[2]}"} | ({parts[1]} if parts[2] == default else set())
    return host in candidates


def _split(origin: str) -> tuple[str, str, int | None] | None:
    try:
        parts = urlsplit(origin)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts.scheme, host, port
