"""Connections to readers: how many are open, and how each has ended."""

import logging
import time
from typing import Any, Final

from .series import OTHER, Counter, Gauge

# One line for each end, where its level is INFO: `LOG_FORMAT=json` writes the fields of `extra`.
logger = logging.getLogger("realtime.connections")

TRANSPORTS: Final = ("websocket", "sse")
CODES: Final = (
    *("1000", "1001", "1005", "1006", "1008", "1009", "1011", "1012"),
    *("4400", "4401", "4403", "4408", "4429"),
    *("gone", "ended", OTHER),
)
CONNECTIONS: Final = Gauge(
    "realtime_connections",
    "WebSockets, and streams of topics, that are open.",
    transport=TRANSPORTS,
)
OPENED: Final = Counter(
    "realtime_connections_opened_total", "Those that were opened.", transport=TRANSPORTS
)
CLOSED: Final = Counter(
    "realtime_connections_closed_total",
    "Those that ended, by the WebSocket's close code; a stream has gone with its client, or was "
    "ended by the server.",
    transport=TRANSPORTS,
    code=CODES,
)


def opened(transport: str) -> float:
    """Count a connection that was opened; return the time, for `closed`."""
    OPENED.inc(transport)
    CONNECTIONS.inc(transport)
    return time.monotonic()


def closed(
    transport: str, began: float, code: str, path: str, user: Any, events: int, size: int
) -> None:
    """Count a connection that has ended, and log it: `path` is without a query."""
    CONNECTIONS.dec(transport)
    CLOSED.inc(transport, code)
    if logger.isEnabledFor(logging.INFO):
        seconds = round(time.monotonic() - began, 3)
        pk = getattr(user, "pk", None)
        fields = {
            "user": pk if isinstance(pk, int | None) else str(pk),  # JSON has no UUID
            "transport": transport,
            "path": path,
            "seconds": seconds,
            "events": events,
            "bytes": size,
            "code": int(code) if code.isdecimal() else code,
        }
        logger.info("A %s connection ended after %s s: %s", transport, seconds, code, extra=fields)
