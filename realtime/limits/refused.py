"""What limits have refused: how it is counted, and how long a handshake waits to hear of it."""

import asyncio
from typing import Final

from ..conf import settings
from ..metrics.series import OTHER, Counter

RATE_LIMITED: Final = Counter(
    "realtime_rate_limited_total",
    "What was refused by a rate or as too many, by what there was too much of; `publish_rate` is "
    "that of a topic.",
    what=(
        *("messages", "publishes", "subscribes", "authenticates", "opens", "topics"),
        *("publish_rate", "connections", OTHER),
    ),
)

MOST_HELD: Final = 1_000  # handshakes at once; further ones are answered at once
_held = 0


def count_refused(setting: str) -> None:
    """Count a refusal by the name of its setting, as `RATE_PUBLISHES_PER_USER`."""
    what = setting.removeprefix("RATE_").removeprefix("MAX_").partition("_PER_")[0]
    RATE_LIMITED.inc(what.lower())


async def hold_back() -> None:
    """Wait for `HOLD_BACK_SECONDS`, before a handshake is answered with HTTP 429.

    A client that heeds nothing opens the next one as soon as it is answered, which costs the server
    more than the messages that it was refused for.
    """
    global _held
    if _held < MOST_HELD:
        _held += 1
        try:
            await asyncio.sleep(settings.HOLD_BACK_SECONDS)
        finally:
            _held -= 1
