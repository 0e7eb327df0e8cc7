"""The head check: compare topics with the log, at a cost that grows with what is published.

It finds an announcement that was lost with none after it, and what nobody has announced. Where many
topics have readers, the log says which have changed, and those alone are compared. What it can't
tell by that (a transaction that was long under way, a new epoch) is found when all topics have been
compared in turn, in `HEAD_CHECK_IDLE_SECONDS`.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final

from ..conf import settings
from ..eventlog import get_event_log
from ..events.position import START
from ..utils.turns import Turns
from .feed import Feed

logger = logging.getLogger("realtime.hub")

GATHER_SECONDS: Final = 0.1  # for topics that were joined: one statement for all of them
FEW_TOPICS: Final = 500  # are compared all: one statement too, and no more work than to ask first


class HeadCheck:
    """Which of a hub's feeds are due to be compared with the log, and the comparison."""

    def __init__(self, feeds: Mapping[str, Feed]) -> None:
        self._feeds = feeds
        self._is_requested = asyncio.Event()
        self._is_everything_due = False
        self._rejoined: dict[str, None] = {}
        self._mark: object = None  # up to where the log was asked what has changed
        self._turns = Turns()

    def add(self, topic: str) -> None:
        """Compare a topic with the log, in its turn, from now on."""
        self._turns.add(topic)

    def discard(self, topic: str) -> None:
        """Compare a topic no more."""
        self._turns.discard(topic)

    def request(self, topic: str | None = None) -> None:
        """Have a topic compared soon, or all at once."""
        if topic is None:
            self._is_everything_due = True
        else:
            self._rejoined[topic] = None
        self._is_requested.set()

    async def requested(self, until: float) -> None:
        """Wait for a request, but no longer than to this time of the loop."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._is_requested.wait()
            if not self._is_everything_due:
                await asyncio.sleep(GATHER_SECONDS)
        self._is_requested.clear()

    async def find_missed(self, *, is_regular: bool, is_thorough: bool) -> list[str]:
        """Compare what is due; return the topics that had more in the log than was announced.

        Without those that are compared only because they were joined. What the log raises is
        raised where it can be asked for no topic at all; then, as where it can for some,
        everything is due.
        """
        is_thorough = is_thorough or self._is_everything_due
        self._is_everything_due = False
        rejoined, self._rejoined = self._rejoined, {}
        due: dict[str, None] = {}  # each topic that was missed is looked up in it, perhaps all
        try:
            if is_thorough:
                due = dict.fromkeys(self._feeds)
            elif is_regular:
                due = await self._find_due()
            missed = await self._compare([*due, *rejoined])
        except Exception:
            self._is_everything_due = True
            raise
        return [topic for topic in missed if topic in due]

    async def _find_due(self) -> dict[str, None]:
        feeds = self._feeds
        if len(feeds) <= FEW_TOPICS:
            return dict.fromkeys(feeds)
        changed, self._mark = await get_event_log().changes(self._mark, len(feeds))
        if changed is None:
            return dict.fromkeys(feeds)
        turns = settings.HEAD_CHECK_IDLE_SECONDS / settings.HEAD_CHECK_SECONDS
        due = dict.fromkeys(self._turns.next(turns))
        for topic, head in changed.items():
            if topic in feeds and not feeds[topic].has_reached(head):
                due[topic] = None
        return due

    async def _compare(self, topics: Sequence[str]) -> list[str]:
        parts = get_event_log().parts_of(topics) if topics else []
        # All at once: one whose server is silent keeps none of the others waiting.
        found = await asyncio.gather(*map(self._compare_part, parts), return_exceptions=True)
        failures = [each for each in found if isinstance(each, BaseException)]
        if failures:
            self._is_everything_due = True
            if len(failures) == len(parts):
                raise failures[0]
            logger.warning("Can't check the heads of all topics", exc_info=failures[0])
        return [topic for each in found if not isinstance(each, BaseException) for topic in each]

    async def _compare_part(self, topics: Collection[str]) -> list[str]:
        before = {topic: self._feeds[topic].position for topic in topics if topic in self._feeds}
        if not before:
            return []
        heads = await get_event_log().heads(list(before))
        return [
            topic
            for topic in before
            if topic in self._feeds
            and self._feeds[topic].compare(heads.get(topic, START), before[topic])
        ]
