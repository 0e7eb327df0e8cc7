"""Retention by a process that serves: the log is pruned again and again."""

import asyncio
import logging
import time
from typing import Final

from ..processes import registry
from ..utils.threads import DATABASE
from . import get_event_log

logger = logging.getLogger("realtime.hub")

FAILED: Final = (
    "Can't prune the log; trying again in %s s. What has expired is kept until then. If this "
    "stays, mend what the traceback names; `manage.py prune_events` shows whether it works."
)


class Pruner:
    """When this process last applied retention, and the work itself.

    Counted across event loops: on a quiet site, readers come and go before the time is up.
    """

    def __init__(self) -> None:
        self._last: float | None = None  # by the monotonic clock

    async def run(self, interval: float) -> None:
        """Prune the log every `interval` seconds, in turn with others, until cancelled."""
        while True:
            now = time.monotonic()
            if self._last is None:
                self._last = now
            await asyncio.sleep(max(0.0, self._last + interval - now))
            self._last = time.monotonic()
            try:
                await DATABASE.run(get_event_log().prune_in_turn, interval)
                await DATABASE.run(registry.prune)
            except Exception:
                logger.warning(FAILED, interval, exc_info=True)


pruner: Final = Pruner()
