"""Shared reads of the log: many readers that stand at the same place read a page once.

After a restart thousands come back to where their topic stood then. Each page is read, and each of
its events encoded, for all of them.
"""

import asyncio
from contextvars import Context
from typing import Final

from ..conf import settings
from ..eventlog import get_event_log
from ..eventlog.base import Page
from ..events.position import Position
from ..metrics.series import Counter
from ..utils.aio import shielded, spawn

KEEP_SECONDS: Final = 1.0  # in which a page is handed out again
MOST_PAGES: Final = 4  # of a topic: the newest ones

CATCH_UPS: Final = Counter(
    "realtime_catch_up_reads_total",
    "Reads of the log, a page each: for readers that are new or slow, or if an event is missing.",
)


class SharedReads:
    """The pages of one topic that are being read, and those that were read just now."""

    __slots__ = ("_reads", "_topic")

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._reads: dict[Position, asyncio.Task[Page]] = {}

    async def read(self, position: Position) -> Page:
        """Return the page that follows `position`; raises `HistoryGone`.

        Without events, it was asked for after this was called.
        """
        reading = self._reads.get(position)
        if reading is not None:
            page = await shielded(reading)
            if page.events:
                return page
        self._forget(position)
        while len(self._reads) >= MOST_PAGES:
            self._forget(next(iter(self._reads)))
        reading = self._reads[position] = spawn(self._read(position))
        return await shielded(reading)

    async def _read(self, position: Position) -> Page:
        CATCH_UPS.inc()
        reading, size = asyncio.current_task(), settings.TAIL_BYTES + 1
        try:
            page = await get_event_log().read(self._topic, position, settings.LOG_PAGE_EVENTS)
            if page.events:
                size = sum(event.size for event in page.events)
            return page
        finally:
            if size > settings.TAIL_BYTES:
                self._forget(position, reading)
            else:
                later = asyncio.get_running_loop().call_later
                later(KEEP_SECONDS, self._forget, position, reading, context=Context())
            del reading  # which keeps what it raises, and that this frame

    def _forget(self, position: Position, reading: asyncio.Task[Page] | None = None) -> None:
        """Hand out a page no more: this one of `position`, or whichever there is."""
        if reading is None or self._reads.get(position) is reading:
            self._reads.pop(position, None)
