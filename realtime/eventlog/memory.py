"""An event log in memory, for tests: no database, gone with the process."""

import threading
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from itertools import islice, takewhile
from typing import Any

from ..conf import settings
from ..conf.topics import topic_settings
from ..events.event import Event
from ..events.position import OLDEST, START, UNBORN, Position, new_epoch
from ..exceptions import HistoryGone, KeyReused
from .base import Changes, EventLog, NewEvent, Page


class MemoryLog(EventLog):
    """Keeps its promises within one process.

    It knows no transactions: an event that is appended stays, and is announced at once.
    """

    supports_transactions = waits_for_commit = False

    def __init__(self, make_epoch: Callable[[], str] = new_epoch) -> None:
        self._make_epoch = make_epoch
        self._heads: dict[str, Position] = {}
        self._kept: dict[str, list[Event]] = {}  # consecutive, up to the head
        # By topic, publisher and key, with their offsets; age is not kept here either.
        self._first: dict[tuple[str, str, str], tuple[NewEvent, int]] = {}
        self._numbers: dict[str, int] = {}  # of the newest event, counted over all topics
        self._lock = threading.Lock()

    def events(self, topic: str) -> list[Event]:
        """Return what is kept of a topic, oldest first."""
        with self._lock:
            return list(self._kept.get(topic, ()))

    def append(self, batch: Sequence[NewEvent]) -> list[Event]:
        with self._lock:
            known = ChainMap({}, self._first)
            for event in batch:
                if event.key is not None:
                    key = event.topic, event.publisher, event.key
                    first, _ = known.setdefault(key, (event, 0))
                    if (first.type, first.data) != (event.type, event.data):
                        raise KeyReused(event.key)
            return [self._append(event) for event in batch]

    def on_commit(self, callback: Callable[[], object]) -> None:
        callback()

    async def aappend(
        self, batch: Sequence[NewEvent], then: Callable[[Sequence[Event]], object] | None = None
    ) -> list[Event]:
        stored = self.append(batch)
        if then is not None:
            then(stored)
        return stored

    async def heads(self, topics: Sequence[str]) -> Mapping[str, Position]:
        with self._lock:
            return {topic: self._heads[topic] for topic in topics if topic in self._heads}

    async def changes(self, mark: Any, limit: int) -> Changes:
        with self._lock:
            newest = next(reversed(self._numbers.values()), 0)
            if mark is None:
                return Changes(None, newest)
            by_age = takewhile(lambda item: item[1] > mark, reversed(self._numbers.items()))
            names = [name for name, _ in islice(by_age, limit + 1)]
            heads = (
                None
                if len(names) > limit
                else {name: self._heads.get(name, START) for name in names}
            )
            return Changes(heads, newest)

    async def read(self, topic: str, after: Position, limit: int) -> Page:
        with self._lock:
            head, kept = self._heads.get(topic, START), self._kept.get(topic, [])
            dropped = head.offset - len(kept)
            if after != OLDEST and (
                after.epoch not in (UNBORN, head.epoch)
                or not dropped <= after.offset <= head.offset
            ):
                raise HistoryGone(f"The log of {topic!r} no longer holds what followed {after}.")
            first = max(0, after.offset - dropped)
            events = _within(kept[first : first + limit], settings.LOG_PAGE_BYTES)
            if events:
                return Page(events, events[-1].position)
            return Page([], head if after == OLDEST else after)

    def prune(self) -> Mapping[str, int]:
        """Drop what is over `RETENTION_EVENTS`; age is not kept here."""
        pruned: dict[str, int] = {}
        with self._lock:
            for topic, kept in self._kept.items():
                most = topic_settings(topic).retention_events
                if most is not None and (count := len(kept) - most) > 0:
                    del kept[:count]
                    pruned[topic] = count
        return pruned

    def start_epoch(self, topics: Sequence[str] | None = None) -> int:
        with self._lock:
            names = [name for name in self._heads if topics is None or name in topics]
            for name in names:
                epoch = self._make_epoch()
                self._heads[name] = Position(epoch, self._heads[name].offset)
                self._kept[name] = [
                    Event(name, event.type, event.data, epoch, event.offset, event.meta)
                    for event in self._kept[name]
                ]
            return len(names)

    def _append(self, new: NewEvent) -> Event:
        head = self._heads.get(new.topic) or Position(self._make_epoch(), 0)
        if new.key is not None:
            key = new.topic, new.publisher, new.key
            _, offset = self._first.setdefault(key, (new, head.offset + 1))
            if offset <= head.offset:
                return new.to_repeated(head.epoch, offset)
        event = new.to_event(head.epoch, head.offset + 1)
        self._kept.setdefault(new.topic, []).append(event)
        self._heads[new.topic] = event.position
        number = next(reversed(self._numbers.values()), 0) + 1
        self._numbers.pop(new.topic, None)  # the newest is last
        self._numbers[new.topic] = number
        return event


def _within(events: list[Event], room: int) -> list[Event]:
    """Return the first events that are no more than `room` bytes, and at least one."""
    for index, event in enumerate(events):
        room -= event.size
        if index and room < 0:
            return events[:index]
    return events
