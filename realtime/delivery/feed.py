"""The feed: a topic as this process knows it, its newest events and how far they reach.

Announcements may be lost, repeated, reordered or late. By their offsets a repeated
event is dropped, and a gap is found and filled from the log. A log that has another event where
one is known has gone backwards: its topic begins anew.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Iterable
from itertools import islice
from typing import Final

from ..conf import settings
from ..eventlog import get_event_log
from ..eventlog.base import Page
from ..events.event import Event
from ..events.position import START, UNBORN, Position
from ..exceptions import HistoryGone
from ..utils.aio import spawn
from .fanout import Fanout
from .shared_reads import CATCH_UPS, SharedReads

logger = logging.getLogger("realtime.hub")

ENCODED_EVENTS: Final = 16  # newest events of a topic that are kept in their wire forms too


class Feed:
    """A topic as this process knows it: position, newest events, local readers."""

    def __init__(
        self, topic: str, lagging_topics: set[str] | None = None, *, is_authentic: bool = True
    ) -> None:
        self.topic = topic
        self._is_authentic = is_authentic  # what is announced was stored, and is no one's invention
        self.epoch = UNBORN
        self.head = 0
        self.fanout = Fanout(topic, lagging_topics)
        self.starting: asyncio.Task[None] | None = None
        self.is_started = False
        self._tail: deque[Event] | tuple[()] = ()  # an empty deque takes 760 bytes
        self._tail_bytes = 0
        self._is_behind = False
        self._doubted: Event | None = None  # known here, and announced to be another
        self._catching_up: asyncio.Task[None] | None = None
        self._reads: SharedReads | None = None

    @property
    def position(self) -> Position:
        """Return the newest position known here."""
        return Position(self.epoch, self.head) if self.head else START

    def has_reached(self, position: Position) -> bool:
        """Return whether an event at this position is known here."""
        return self.epoch == position.epoch and self.head >= position.offset

    def expect_head(self) -> None:
        """Forget what was announced so far: the log's head, asked for now, is past it."""
        self._is_behind = False

    def start(self, position: Position) -> None:
        """Begin at the log's head; read what was announced since it was asked for."""
        self.epoch, self.head = position.epoch, position.offset
        self.fanout.restart(position)
        self.is_started = True
        if self._is_behind:
            self.catch_up()

    def slow_readers(self) -> int:
        """Return how many readers are behind."""
        return self.fanout.behind(self.position)

    def close(self) -> None:
        """Stop the feed's tasks; it has no readers any more."""
        self.fanout.close()
        for task in (self.starting, self._catching_up):
            if task is not None:
                task.cancel()

    def after(self, position: Position, limit: int) -> list[Event] | None:
        """Return what followed a position, from memory; None where the log has to be read."""
        if position.epoch != self.epoch and position != START:
            return None
        missing = self.head - position.offset
        if missing < 0 or missing > len(self._tail):
            return None
        first = len(self._tail) - missing
        return list(islice(self._tail, first, first + limit))

    def read(self, position: Position) -> Awaitable[Page]:
        """Return what followed a position in the log, a page; raises `HistoryGone`."""
        if self._reads is None:
            self._reads = SharedReads(self.topic)
        return self._reads.read(position)

    def offer(self, events: Iterable[Event]) -> None:
        """Deliver announced events that come next; read the log where one before is missing."""
        next_ones: list[Event] = []
        head = self.head
        for event in events:
            if not event.offset:
                next_ones.append(event)
            elif not self.is_started:
                self._is_behind = True
            elif event.offset == head + 1 and event.epoch == self.epoch:
                next_ones.append(event)
                head += 1
            elif event.epoch != self.epoch or event.offset > head:
                # A first event too: one of a deleted topic may come late, as if it were new.
                self.catch_up()
            elif (known := self._known(event.offset)) not in (None, event):
                self._doubted = self._doubted or known
                self.catch_up()
        self._advance(next_ones)

    def compare(self, head: Position, before: Position) -> bool:
        """Compare with the head in the log; True if an announcement was missed.

        `before` is where this stood when the head was asked for.
        """
        if not self.is_started:
            self._is_behind = True  # the start may have read the head before
            return False
        if self._doubted is not None:
            self.catch_up()  # what was to be read again could not be
        if head == self.position:
            return False
        if head.epoch == self.epoch and head.offset < self.head:
            # Announced after the heads were read; or it was forged, or the log has lost it.
            if head.epoch == before.epoch and head.offset < before.offset:
                self.catch_up()
            return False
        self.catch_up()
        return True

    def catch_up(self) -> None:
        """Read from the log what is missing here; any number of calls make one read at a time."""
        self._is_behind = True
        if self.is_started and (self._catching_up is None or self._catching_up.done()):
            self._catching_up = spawn(self._catch_up())

    async def _catch_up(self) -> None:
        stored: Event | None = None  # the newest that was read
        while self._is_behind:
            self._is_behind = False
            doubted, self._doubted = self._doubted, None
            try:
                try:
                    events = await self._read_on(doubted or self._known(self.head), stored)
                except HistoryGone:
                    heads = await get_event_log().heads([self.topic])
                    self._restart(heads.get(self.topic, START))
                else:
                    self._advance(events)
                    if events:
                        stored, self._is_behind = events[-1], True
            except Exception:
                self._doubted = self._doubted or doubted
                # The next check of the heads tries again.
                logger.warning("Can't read the log of %s", self.topic, exc_info=True)
                return

    async def _read_on(self, known: Event | None, stored: Event | None) -> list[Event]:
        """Return what follows in the log; raise `HistoryGone` if it has another event than `known`.

        `stored` was just read there, and need not be compared again.
        """
        log, limit = get_event_log(), settings.LOG_PAGE_EVENTS
        CATCH_UPS.inc()
        if known is None or known == stored:
            return (await log.read(self.topic, self.position, limit)).events
        # One that is known is read again: offsets that are given anew look like any others.
        upto, position = Position(known.epoch, known.offset - 1), self.position
        try:
            events = (await log.read(self.topic, upto, limit)).events
        except HistoryGone:  # pruned, or gone with what follows
            return (await log.read(self.topic, position, limit)).events
        if events[:1] != [known]:
            if self._is_authentic:
                await log.end_epoch(known)
            raise HistoryGone(f"The log of {self.topic!r} has another event at {known.position}.")
        if known.position != position or len(events) == 1:
            # An older one, that was doubted; or the page had no room for more than the known one.
            return (await log.read(self.topic, position, limit)).events
        return events[1:]

    def _known(self, offset: int) -> Event | None:
        """Return the event with this offset, if it is in memory."""
        index = len(self._tail) - 1 - (self.head - offset)
        return self._tail[index] if 0 <= index < len(self._tail) else None

    def _advance(self, events: list[Event]) -> None:
        fresh = [
            event
            for event in events
            if not event.offset or event.offset > self.head or event.epoch != self.epoch
        ]
        for event in fresh:
            if not event.offset:
                continue
            if not self._tail:
                self._tail = deque()
            self.epoch, self.head = event.epoch, event.offset
            self._tail.append(event)
            self._tail_bytes += event.size
            if len(self._tail) > ENCODED_EVENTS:
                self._tail[-1 - ENCODED_EVENTS].forget_encoded()
        while self._tail and (
            len(self._tail) > settings.TAIL_EVENTS or self._tail_bytes > settings.TAIL_BYTES
        ):
            self._tail_bytes -= self._tail.popleft().size
        if fresh:
            self.fanout.send(fresh)

    def _restart(self, position: Position) -> None:
        self.epoch, self.head = position.epoch, position.offset
        self._tail = ()
        self._tail_bytes = 0
        if self._reads is not None:
            self._reads.clear()  # what was read may be gone
        self.fanout.restart(position)
