"""An event log in memory, for tests: no database, gone with the process."""

import threading
from collections.abc import Callable, Mapping, Sequence

from ..conf import settings
from ..events.event import Event
from ..events.position import OLDEST, START, UNBORN, Position, new_epoch
from ..exceptions import HistoryGone
from .base import EventLog, Page


class MemoryLog(EventLog):
    """Keeps its promises within one process, but knows no transactions: an event that is appended
    stays, and is announced at once."""

    def __init__(self) -> None:
        self._topics: dict[str, list[Event]] = {}
        self._dropped: dict[str, int] = {}  # how many of the oldest are gone
        self._epochs: dict[str, str] = {}
        self._lock = threading.Lock()

    def events(self, topic: str) -> list[Event]:
        """What is kept of a topic, oldest first."""
        with self._lock:
            return list(self._topics.get(topic, ()))

    def append(self, topic: str, type: str, data: str) -> Event:
        with self._lock:
            kept = self._topics.setdefault(topic, [])
            epoch = self._epochs.setdefault(topic, new_epoch())
            offset = self._dropped.get(topic, 0) + len(kept) + 1
            event = Event(topic, type, data, epoch, offset)
            kept.append(event)
        return event

    def on_commit(self, callback: Callable[[], None]) -> None:
        callback()

    async def append_now(
        self, topic: str, type: str, data: str, then: Callable[[Event], None] | None = None
    ) -> Event:
        event = self.append(topic, type, data)
        if then is not None:
            then(event)
        return event

    async def heads(self, topics: Sequence[str]) -> Mapping[str, Position]:
        with self._lock:
            return {topic: self._head(topic) for topic in topics if topic in self._epochs}

    async def read(self, topic: str, after: Position, limit: int) -> Page:
        with self._lock:
            head = self._head(topic)
            kept = self._topics.get(topic, [])
            skip = max(0, after.offset - self._dropped.get(topic, 0))
            if after != OLDEST and (
                after.epoch not in (UNBORN, head.epoch)
                or not self._dropped.get(topic, 0) <= after.offset <= head.offset
            ):
                raise HistoryGone(f"The log of {topic!r} no longer holds what followed {after}.")
            events = _within(kept[skip : skip + limit], settings.LOG_PAGE_BYTES)
            if events:
                return Page(events, events[-1].position)
            return Page([], head if after == OLDEST else after)

    def prune(self) -> Mapping[str, int]:
        """Drop what is over `RETENTION_EVENTS`; age is not kept here."""
        pruned: dict[str, int] = {}
        if settings.RETENTION_EVENTS is None:
            return pruned
        with self._lock:
            for topic, kept in self._topics.items():
                count = max(0, len(kept) - settings.RETENTION_EVENTS)
                if count:
                    del kept[:count]
                    self._dropped[topic] = self._dropped.get(topic, 0) + count
                    pruned[topic] = count
        return pruned

    def renew(self, topics: Sequence[str] | None = None) -> int:
        with self._lock:
            names = [name for name in self._epochs if topics is None or name in topics]
            for name in names:
                self._epochs[name] = epoch = new_epoch()
                self._topics[name] = [
                    Event(name, event.type, event.data, epoch, event.offset)
                    for event in self._topics[name]
                ]
            return len(names)

    def _head(self, topic: str) -> Position:
        if topic not in self._epochs:
            return START
        offset = self._dropped.get(topic, 0) + len(self._topics.get(topic, ()))
        return Position(self._epochs[topic], offset)


def _within(events: list[Event], room: int) -> list[Event]:
    """The first events that are no more than `room` bytes, and at least one."""
    for index, event in enumerate(events):
        room -= len(event.data.encode())
        if index and room < 0:
            return events[:index]
    return events
