"""What the server counts, as series."""

from typing import Final

from ..server.counters import counters
from .series import OTHER, Counter, Histogram

HANDSHAKES: Final = Counter(
    "realtime_handshakes_refused_total",
    "WebSockets that were refused: by the code of the error, for a handshake that is none "
    "(bad_handshake), or, of any connection, where there are too many (no_room).",
    reason=(
        *("bad_handshake", "no_room", "not_identified", "not_allowed", "too_many", "bad_host"),
        *("bad_topic", "bad_id", "unavailable", OTHER),
    ),
)
STALLED: Final = Counter(
    "realtime_stalled_closed_total",
    "Connections that were closed because the client took nothing for `stall_timeout`.",
)
INBOX_FULL: Final = Counter(
    "realtime_inbox_full_total",
    "Times that a WebSocket was not read any further, since its messages waited for the handler.",
)
RESTARTS: Final = Counter(
    "realtime_worker_restarts_total", "Workers that ended and were started again by `serve`."
)
LOOP_LAG: Final = Histogram(
    "realtime_loop_lag_seconds", "How late the event loop was, measured four times a second."
)


def connect() -> None:
    """Let the server count in these series."""
    counters.handshake_refused = HANDSHAKES.inc
    counters.stalled_closed = STALLED.inc
    counters.inbox_full = INBOX_FULL.inc
    counters.worker_restarted = RESTARTS.inc
    counters.loop_lag = LOOP_LAG.observe


connect()
