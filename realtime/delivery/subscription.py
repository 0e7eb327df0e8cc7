"""The subscription: one async iterator over one or more topics, from a position.

A subscription keeps no queue of events. It keeps a position per topic and reads what follows it:
from the feed's memory while it keeps up, from the log when it is new or slow. That is why replay
and live join without a gap, and why a client that stops reading costs nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from typing import Self

from ..conf import settings
from ..events.event import Event, take
from ..events.position import Position
from .fanout import DELIVERIES, WRITE_BYTES, WRITE_EVENTS
from .synced import Sink
from .topic_subscriber import Reset, Started, TopicSubscriber


class Subscription:
    """Read topics from given positions.

    Iterate it, or call `read`, or have `on_ready` called and iterate `ready`.

    Use it as an async context manager, or call `close`: an open subscription is served.
    """

    __slots__ = (
        "_ephemeral",
        "_is_interrupted",
        "_page",
        "_ready",
        "_subscribers",
        "_waiter",
        "dropped",
        "is_closed",
        "is_waiting",
        "on_ready",
        "sent_bytes",
        "sent_events",
        "sink",
    )

    def __init__(self, sink: Sink | None = None) -> None:
        self.sink = sink
        self.dropped = 0  # ephemeral events that went unread
        self.sent_events = 0  # and those handed out
        self.sent_bytes = 0  # by the fast lane, of topics that it no longer writes to
        self.is_waiting = False  # with nothing to hand out: the fast lane may be used
        self.is_closed = False
        self.on_ready: Callable[[], None] | None = None  # called when `ready` may have something
        self._subscribers: dict[str, TopicSubscriber] = {}
        # May have something to hand out, each once. A list, since a dict takes 170 bytes more.
        self._ready: list[TopicSubscriber] = []
        self._ephemeral: list[Event] | None = None
        self._page: list[Event | Reset] = []  # read, and not yet yielded by the iterator
        self._waiter: asyncio.Future[bool] | None = None
        self._is_interrupted = False

    async def add(
        self,
        topic: str,
        after: Position | None = None,
        on_start: Callable[[Started], Awaitable[None]] | None = None,
        now: Position | None = None,
    ) -> Started:
        """Start reading `topic`: after a position, or with what comes from now on.

        `now` is where the topic stood when the reader was told so. Of a topic with `STATE` the
        newest event comes first.

        Where the position is out of reach (see `EventLog.read`), reading starts now and `recovered`
        is False. `on_start` is awaited before the first event is handed out. Raises ValueError for
        a topic that is read already, RuntimeError when closed.
        """
        if self.is_closed:
            raise RuntimeError("The subscription is closed.")
        if topic in self._subscribers:
            raise ValueError(f"{topic!r} is subscribed already.")
        subscriber = self._subscribers[topic] = TopicSubscriber(self, topic)
        try:
            await subscriber.attach()
            started = await subscriber.find_start(after, now)
            if on_start is not None and self._has(subscriber):
                await on_start(started)
        except BaseException:
            if self._has(subscriber):
                self.remove(topic)
            subscriber.detach()
            raise
        if self._has(subscriber):
            subscriber.is_placed = True
            self.wake(subscriber)
        else:  # removed, or all closed, in the meantime
            subscriber.detach()
        return started

    def remove(self, topic: str) -> None:
        """Stop reading `topic`; what was not handed out yet is not handed out."""
        subscriber = self._subscribers.pop(topic, None)
        if subscriber is not None:
            if subscriber in self._ready:
                self._ready.remove(subscriber)
            subscriber.detach()
            self._page = [item for item in self._page if item.topic != topic]
            if self._ephemeral is not None:
                self._ephemeral = [each for each in self._ephemeral if each.topic != topic]

    def close(self) -> None:
        """Stop reading all topics and end the iteration."""
        self.is_closed = True
        for topic in list(self._subscribers):
            self.remove(topic)
        self._wake_reader()

    @property
    def topics(self) -> list[str]:
        """Return what is being read."""
        return list(self._subscribers)

    @property
    def positions(self) -> dict[str, Position]:
        """Return where the subscription stands in each of its topics."""
        return {topic: subscriber.position for topic, subscriber in self._subscribers.items()}

    async def read(self, timeout: float | None = None) -> list[Event | Reset]:
        """Return what comes next, oldest first within a topic; wait until there is something.

        Returns an empty list after `timeout` seconds, and once interrupted or closed.
        Cancelling it loses nothing: positions move only when something is returned.
        """
        while not self.is_closed:
            if items := await self._next_items():
                return items
            if self._is_interrupted:
                self._is_interrupted = False
                return []
            if self.is_closed or not await self._wait(timeout):
                return []
        return []

    def interrupt(self) -> None:
        """Have the `read` that waits, or else the next one, return; or have `on_ready` called."""
        self._is_interrupted = True
        self._wake_reader()

    async def ready(self) -> AsyncIterator[Event | Reset]:
        """Yield what can be handed out without waiting for more; `on_ready` is called for more.

        What the fast lane takes is not yielded.
        """
        # What is left of a page is tried again after each event that is yielded: a socket that was
        # full has room then, and a caller that wrote event by event would never catch up with a
        # topic on which there always is something new.
        while True:
            while self._page:
                self._page = self._write(self._page)
                if self._page:
                    yield self._page.pop(0)
            items = await self._next_items()
            if not items:
                return
            self._page.extend(items)

    async def __aiter__(self) -> AsyncIterator[Event | Reset]:
        while not self.is_closed:
            async for item in self.ready():
                yield item
            if not self.is_closed:
                await self._wait(None)

    async def _next_items(self) -> list[Event | Reset]:
        """Return what comes next; where there is nothing, allow the fast lane."""
        while self._ready or self._ephemeral:
            items = await self._read_next() if self._ready else []
            if self._ephemeral:
                # Along with the others: a flood of them must not hold up what is logged.
                DELIVERIES.add(len(self._ephemeral), "awaited")
                items = [*self._ephemeral, *items]
                self._ephemeral = None
            if items:
                self.sent_events += len(items)
                return items
        if not self.is_closed:
            self._allow_fastlane()
        return []

    def _write(self, items: list[Event | Reset]) -> list[Event | Reset]:
        """Write to the fast lane what it takes now; return the rest."""
        start = 0
        while self.sink is not None and start < len(items):
            events = take(_before_reset(items, start), WRITE_EVENTS, WRITE_BYTES)
            if not events or not (size := self.sink.try_write(events)):
                break
            self.sent_bytes += size
            start += len(events)
        return items[start:] if start else items

    async def _read_next(self) -> list[Event | Reset]:
        subscriber = self._ready.pop(0)
        try:
            items = await subscriber.read()
        except BaseException:
            if self._has(subscriber):
                self._note_ready(subscriber)
            raise
        if not items or not self._has(subscriber):
            return []
        # After the others: a topic with a long history must not hold up the others.
        self._note_ready(subscriber)
        return items

    def _has(self, subscriber: TopicSubscriber) -> bool:
        """Return whether a subscriber is still read, after something was awaited."""
        return self._subscribers.get(subscriber.topic) is subscriber

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def wake(self, subscriber: TopicSubscriber) -> None:
        """Have the topic of `subscriber` read: it may have something new."""
        self._note_ready(subscriber)
        self._wake_reader()

    def _note_ready(self, subscriber: TopicSubscriber) -> None:
        if subscriber not in self._ready:
            self._ready.append(subscriber)

    def keep_ephemeral(self, event: Event) -> None:
        """Hold an ephemeral event until it is read; over `EPHEMERAL_QUEUE` the oldest goes."""
        if self._ephemeral is None:
            self._ephemeral = []
        if len(self._ephemeral) >= settings.EPHEMERAL_QUEUE:
            del self._ephemeral[0]
            self.dropped += 1
        self._ephemeral.append(event)
        self._wake_reader()

    def _allow_fastlane(self) -> None:
        """Let the fan-out write to the sink: there is nothing to hand out before."""
        self.is_waiting = True
        for subscriber in self._subscribers.values():
            subscriber.sync()

    def _forbid_fastlane(self) -> None:
        """Keep the fan-out of every topic from the sink: something is to be handed out first."""
        if self.is_waiting:
            self.is_waiting = False
            for subscriber in self._subscribers.values():
                subscriber.unsync()

    def _wake_reader(self) -> None:
        self._forbid_fastlane()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)
        elif self.on_ready is not None:
            self.on_ready()

    async def _wait(self, timeout: float | None) -> bool:
        """Wait until there may be something to read; return False after `timeout` seconds."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiter = waiter
        timer = None
        if timeout is not None:
            timer = loop.call_later(timeout, _expire, waiter)
        self._allow_fastlane()
        try:
            return await waiter
        finally:
            self._forbid_fastlane()
            self._waiter = None
            if timer is not None:
                timer.cancel()


def _before_reset(items: list[Event | Reset], start: int) -> Iterator[Event]:
    for item in islice(items, start, None):
        if isinstance(item, Reset):
            return
        yield item


def _expire(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
