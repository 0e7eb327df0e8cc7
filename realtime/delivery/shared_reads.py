"""Shared reads of the log: many readers that stand at the same place read a page once.

After a restart thousands come back to where their topic stood then. Each page is read, and each of
its events encoded, for all of them.
"""

import asyncio
from contextlib import suppress
from contextvars import Context
from typing import Final

from ..conf import settings
from ..eventlog import get_event_log
from ..eventlog.base import Page
from ..events.position import Position
from ..exceptions import HistoryGone
from ..metrics.series import Counter
from ..utils.aio import shielded, spawn

KEEP_SECONDS: Final = 1.0  # from when a page was asked for, in which it is handed out again
MOST_PAGES: Final = 8  # of a topic, of `TAIL_BYTES` each: those that were asked for last

CATCH_UPS: Final = Counter(
    "realtime_catch_up_reads_total",
    "Reads of the log, a page each: for readers that are new or slow, or if an event is missing.",
)


class _Read:
    """A read under way, or the page that it has brought."""

    __slots__ = ("task", "timer", "waiting")

    def __init__(self, task: asyncio.Task[Page], timer: asyncio.TimerHandle) -> None:
        self.task = task
        self.timer = timer
        self.waiting = 0  # readers


class SharedReads:
    """The pages of one topic that are being read, and those that were read just now."""

    __slots__ = ("_reads", "_topic")

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._reads: dict[Position, _Read] = {}

    async def read(self, position: Position) -> Page:
        """Return the page that follows `position`; raises `HistoryGone`.

        Without events, or gone, it was asked for after this was called.
        """
        if position in self._reads:
            # It was begun before: what was not there, or not within reach, may be by now.
            with suppress(HistoryGone):
                page = await self._page(position)
                if page.events:
                    return page
        # What is there now was begun after this was called: the first one has been forgotten.
        if position not in self._reads:
            self._begin(position)
        return await self._page(position)

    def clear(self) -> None:
        """Hand out no page that was read, or asked for, by now."""
        for position in list(self._reads):
            self._forget(position)

    def _begin(self, position: Position) -> None:
        while len(self._reads) >= MOST_PAGES:
            self._forget(next(iter(self._reads)))
        # From the beginning: one that hangs must not keep those who come later.
        timer = asyncio.get_running_loop().call_later(
            KEEP_SECONDS, self._forget, position, context=Context()
        )
        self._reads[position] = _Read(spawn(self._read(position)), timer)

    async def _page(self, position: Position) -> Page:
        read = self._reads[position]
        read.waiting += 1
        try:
            return await shielded(read.task)
        finally:
            read.waiting -= 1
            if not read.waiting and not read.task.done():
                read.task.cancel()  # nobody wants it any more
                if self._reads.get(position) is read:
                    self._forget(position)  # before it has ended: one that comes now begins another
            del read  # as below

    async def _read(self, position: Position) -> Page:
        CATCH_UPS.inc()
        task, is_kept = asyncio.current_task(), False
        try:
            page = await get_event_log().read(self._topic, position, settings.LOG_PAGE_EVENTS)
            size = sum(event.size for event in page.events)
            is_kept = 0 < size <= settings.TAIL_BYTES
            return page
        finally:
            read = self._reads.get(position)
            if read is not None and read.task is task and not is_kept:
                self._forget(position)
            del task, read  # which keep what it raises, and that this frame

    def _forget(self, position: Position) -> None:
        """Hand out the page of `position` no more."""
        read = self._reads.pop(position, None)
        if read is not None:
            read.timer.cancel()  # or it would end the next one of this place
