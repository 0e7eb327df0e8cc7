"""The outbox: events on their way to the bus. What `announce` puts in goes out as it takes it."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from ..conf import settings
from ..events.event import Event, take
from ..metrics.series import Counter
from ..utils.aio import spawn
from .bus.base import Bus

MESSAGE_EVENTS: Final = 100  # most that one message on the bus carries
MESSAGE_BYTES: Final = 65_536  # and their data's bytes

SENT: Final = Counter(
    "realtime_announcements_sent_total", "Events that the bus has taken for other processes."
)
DROPPED: Final = Counter(
    "realtime_announcements_dropped_total",
    "Events that the bus did not take, or not in time: other processes find them in the log.",
)


class Outbox:
    """Events that wait for the bus, by topic: those of one topic go together."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._by_topic: dict[str, deque[Event]] = {}
        self._count = 0
        self._sending: asyncio.Task[None] | None = None

    def put(self, topic: str, events: Sequence[Event]) -> None:
        """Send events of one topic; over `ANNOUNCE_QUEUE` that wait already, they are dropped."""
        if self._count >= settings.ANNOUNCE_QUEUE:
            self._bus.note_failure("is too slow", OverflowError("ANNOUNCE_QUEUE is full"))
            DROPPED.add(len(events))
            return
        self._by_topic.setdefault(topic, deque()).extend(events)
        self._count += len(events)
        if self._sending is None:
            self._sending = spawn(self._send())

    async def sent(self) -> None:
        """Wait until the bus has taken what was put in, or has failed."""
        if self._sending is not None:
            await self._sending

    async def _send(self) -> None:
        try:
            while self._by_topic:
                topic, events = self._next_message()
                if await self._bus.send(topic, events):
                    SENT.add(len(events))
                    continue
                DROPPED.add(len(events))
                if not self._bus.is_running:
                    DROPPED.add(self._count)
                    self._by_topic.clear()  # nothing waits here for a bus that is down
                    self._count = 0
        finally:
            self._sending = None

    def _next_message(self) -> tuple[str, list[Event]]:
        """Return what one topic has waiting, as far as one message may carry it."""
        topic = next(iter(self._by_topic))
        waiting = self._by_topic.pop(topic)
        events = take(waiting, MESSAGE_EVENTS, MESSAGE_BYTES)
        for _ in events:
            waiting.popleft()
        if waiting:
            self._by_topic[topic] = waiting  # after the other topics
        self._count -= len(events)
        return topic, events
