"""The subscription: one async iterator over one or more topics, from a position.

A subscriber keeps no queue of events. It keeps a position per topic and reads what follows it:
from the feed's memory while it keeps up, from the log when it is new or slow. That is why replay
and live join without a gap, and why a client that stops reading costs nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from ..conf import settings
from ..eventlog import get_event_log
from ..events.event import Event, together
from ..events.position import OLDEST, START, Position
from ..exceptions import HistoryGone
from .fanout import TOGETHER_BYTES, TOGETHER_EVENTS, Encoder, Rank, Writer
from .feed import Feed
from .hub import Hub, get_hub


class Reset(NamedTuple):
    """History is gone: what was read of `topic` is stale; what follows comes after `position`."""

    topic: str
    position: Position


class Started(NamedTuple):
    """Where reading begins. `recovered` is False where the asked position is out of reach."""

    position: Position
    recovered: bool


class FastLane(Protocol):
    """A way past the awaited path, for a subscriber that is waiting with nothing to send."""

    def push(self, *events: Event) -> bool:
        """Write the events to the socket at once and whole; False if that can't be done now."""

    def direct(self) -> tuple[Writer, Encoder] | None:
        """What `push` writes to and in which form, as long as that does not change."""


class Cursor:
    """A subscriber's place in one topic."""

    __slots__ = (
        "epoch",
        "feed",
        "hub",
        "offset",
        "placed",
        "rank",
        "slot",
        "subscription",
        "topic",
    )

    def __init__(self, subscription: "Subscription", topic: str) -> None:
        self.subscription = subscription
        self.topic = topic
        self.hub: Hub | None = None
        self.feed: Feed | None = None
        self.placed = False  # until then there is no position to read from
        self.epoch = ""  # while the cursor is in step (see `fanout`), the feed's count instead
        self.offset = 0
        self.rank: Rank | None = None
        self.slot = 0

    async def attach(self) -> Feed:
        """Have the process's hub serve this cursor."""
        hub = get_hub()
        self.feed = await hub.attach(self.topic, self)
        self.hub = hub
        return self.feed

    def detach(self) -> None:
        """Be served no more; a fan-out that is under way passes it over too."""
        self.fall_out()
        self.placed = False
        if self.hub is not None and self.feed is not None:
            self.hub.detach(self.feed, self)
            self.hub = None

    @property
    def position(self) -> Position:
        """After the last event that was handed out."""
        if self.rank is not None and self.feed is not None:
            return Position(*self.feed.fanout.position_of(self))
        return Position(self.epoch, self.offset)

    @position.setter
    def position(self, position: Position) -> None:
        self.epoch, self.offset = position.epoch, position.offset

    def deliver(self, event: Event) -> None:
        """A new event: straight to the socket if nothing stands before it, else wake the reader."""
        if not self.placed:
            return
        subscription = self.subscription
        offset = event.offset
        if offset and offset <= self.offset and event.epoch == self.epoch:
            self.fall_in()  # read already, ahead of the fan-out, which is perhaps as far now
            return
        if subscription.waiting and (
            not offset or (offset == self.offset + 1 and event.epoch == self.epoch)
        ):
            lane = subscription.lane
            if lane is not None and lane.push(event):
                if offset:
                    self.offset = offset
                self.fall_in()
                return
        if not offset:
            subscription.keep_ephemeral(event)
        else:
            subscription.wake(self)

    @property
    def writer(self) -> tuple[Writer, Encoder] | None:
        """Where events may go without asking; None while something stands before them."""
        subscription = self.subscription
        if not self.placed or not subscription.waiting or subscription.lane is None:
            return None
        return subscription.lane.direct()

    def fall_in(self) -> None:
        """Be in step with the feed, if nothing stands before its next event."""
        if self.feed is not None:
            self.feed.fanout.fall_in(self)

    def fall_out(self) -> None:
        """Be asked for each event again."""
        if self.feed is not None and self.rank is not None:
            self.feed.fanout.fall_out(self)

    def wake(self) -> None:
        """The feed has changed; look again."""
        if self.placed:
            self.subscription.wake(self)

    async def read(self) -> list[Event | Reset]:
        """The events that come next, or none; moves past them."""
        assert self.feed is not None
        events = self.feed.after(self.epoch, self.offset, settings.LOG_PAGE_EVENTS)
        if events is None:
            try:
                page = await get_event_log().read(
                    self.topic, self.position, settings.LOG_PAGE_EVENTS
                )
            except HistoryGone:
                heads = await get_event_log().heads([self.topic])
                self.position = heads.get(self.topic, START)
                return [Reset(self.topic, self.position)]
            self.position = page.position
            return list(page.events)
        if events:
            self.position = events[-1].position
        return list(events)


class Subscription:
    """Reads topics from given positions: iterate it, or call `read`, or have `on_ready` called and
    iterate `ready`.

    Use it as an async context manager, or call `close`: an open subscription is served.
    """

    __slots__ = (
        "_ephemeral",
        "_page",
        "_ready",
        "_waiter",
        "closed",
        "cursors",
        "dropped",
        "lane",
        "on_ready",
        "waiting",
    )

    def __init__(self, lane: FastLane | None = None) -> None:
        self.lane = lane
        self.dropped = 0  # ephemeral events that went unread
        self.waiting = False  # nothing to hand out: the fast lane may be used
        self.cursors: dict[str, Cursor] = {}
        self._ready: dict[Cursor, None] = {}  # may have something to hand out
        self.on_ready: Callable[[], None] | None = None  # called when `ready` may have something
        self._ephemeral: list[Event] = []
        self._page: list[Event | Reset] = []  # read, and not yet yielded by the iterator
        self._waiter: asyncio.Future[bool] | None = None
        self.closed = False

    async def add(
        self,
        topic: str,
        after: Position | None = None,
        on_start: Callable[[Started], Awaitable[None]] | None = None,
    ) -> Started:
        """Start reading `topic`: after a position, or with what comes from now on.

        Where the position is out of reach (see `EventLog.read`), reading starts now and `recovered`
        is False. `on_start` is awaited before the first event is handed out. Raises ValueError for
        a topic that is read already, RuntimeError when closed.
        """
        if self.closed:
            raise RuntimeError("The subscription is closed.")
        if topic in self.cursors:
            raise ValueError(f"{topic!r} is subscribed already.")
        cursor = self.cursors[topic] = Cursor(self, topic)
        try:
            feed = await cursor.attach()
            started = await _find_start(feed, after)
            cursor.position = started.position
            if on_start is not None and self._serves(cursor):
                await on_start(started)
        except BaseException:
            if self._serves(cursor):
                self.remove(topic)
            cursor.detach()
            raise
        if self._serves(cursor):
            cursor.placed = True
            self.wake(cursor)
        else:  # removed, or all closed, in the meantime
            cursor.detach()
        return started

    def remove(self, topic: str) -> None:
        """Stop reading `topic`; what was not handed out yet is not handed out."""
        cursor = self.cursors.pop(topic, None)
        if cursor is not None:
            self._ready.pop(cursor, None)
            cursor.detach()
            self._page = [item for item in self._page if item.topic != topic]
            self._ephemeral = [event for event in self._ephemeral if event.topic != topic]

    def close(self) -> None:
        """Stop reading all topics and end the iteration."""
        self.closed = True
        for topic in list(self.cursors):
            self.remove(topic)
        self._release()

    @property
    def positions(self) -> dict[str, Position]:
        """Where the subscription stands in each of its topics."""
        return {topic: cursor.position for topic, cursor in self.cursors.items()}

    async def read(self, timeout: float | None = None) -> list[Event | Reset]:
        """What comes next, oldest first within a topic; waits until there is something.

        Returns an empty list after `timeout` seconds, and once the subscription is closed.
        Cancelling it loses nothing: positions move only when something is returned.
        """
        while not self.closed:
            if items := await self._take():
                return items
            if self.closed or not await self._wait(timeout):
                return []
        return []

    async def ready(self) -> AsyncIterator[Event | Reset]:
        """What can be handed out without waiting for more, to the last; `on_ready` tells of new.

        What the fast lane takes is not handed out. While there always is something new, one who
        writes events one by one would never have written all, and never be in step.
        """
        while True:
            while self._page:  # first what an iteration that was given up has left
                yield self._page.pop(0)
            items = await self._take()
            if not items:
                return
            self._page.extend(self._push(items))

    async def __aiter__(self) -> AsyncIterator[Event | Reset]:
        while not self.closed:
            async for item in self.ready():
                yield item
            if not self.closed:
                await self._wait(None)

    async def _take(self) -> list[Event | Reset]:
        """What comes next, or nothing: then the subscription is waiting."""
        while self._ready or self._ephemeral:
            items = await self._read_next() if self._ready else []
            if self._ephemeral:
                # Along with the others: a flood of them must not hold up what is logged.
                items = [*self._ephemeral, *items]
                self._ephemeral.clear()
            if items:
                return items
        if not self.closed:
            self._rest()
        return []

    def _push(self, items: list[Event | Reset]) -> list[Event | Reset]:
        """Write to the fast lane what it takes now; the rest."""
        start = 0
        while self.lane is not None and start < len(items):
            events = together(_before_reset(items, start), TOGETHER_EVENTS, TOGETHER_BYTES)
            if not events or not self.lane.push(*events):
                break
            start += len(events)
        return items[start:]

    async def _read_next(self) -> list[Event | Reset]:
        cursor = next(iter(self._ready))
        del self._ready[cursor]
        try:
            items = await cursor.read()
        except BaseException:
            if self._serves(cursor):
                self._ready[cursor] = None
            raise
        if not items or not self._serves(cursor):
            return []
        # To the end of the line: a topic with a long history must not hold up the others.
        self._ready[cursor] = None
        return items

    def _serves(self, cursor: Cursor) -> bool:
        """Whether the cursor was not removed while something was awaited."""
        return self.cursors.get(cursor.topic) is cursor

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def wake(self, cursor: Cursor) -> None:
        """The topic of `cursor` has something new."""
        self._ready[cursor] = None
        self._release()

    def keep_ephemeral(self, event: Event) -> None:
        """Hold an ephemeral event until it is read; over `EPHEMERAL_QUEUE` the oldest goes."""
        if len(self._ephemeral) >= settings.EPHEMERAL_QUEUE:
            del self._ephemeral[0]
            self.dropped += 1
        self._ephemeral.append(event)
        self._release()

    def _rest(self) -> None:
        """There is nothing to hand out: from now on the fast lane may be used."""
        self.waiting = True
        for cursor in self.cursors.values():
            cursor.fall_in()

    def _rise(self) -> None:
        """There may be something to hand out: nothing goes past it."""
        if self.waiting:
            self.waiting = False
            for cursor in self.cursors.values():
                cursor.fall_out()

    def _release(self) -> None:
        self._rise()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)
        elif self.on_ready is not None:
            self.on_ready()

    async def _wait(self, timeout: float | None) -> bool:
        """Wait until there may be something to read; False after `timeout` seconds."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiter = waiter
        timer = None
        if timeout is not None:
            timer = loop.call_later(timeout, _expire, waiter)
        self._rest()
        try:
            return await waiter
        finally:
            self._rise()
            self._waiter = None
            if timer is not None:
                timer.cancel()


async def _find_start(feed: Feed, after: Position | None) -> Started:
    if after is None:
        return Started(feed.position, True)
    if after == OLDEST or feed.after(after.epoch, after.offset, 1) is not None:
        return Started(after, True)
    try:
        await get_event_log().read(feed.topic, after, 1)
    except HistoryGone:
        return Started(feed.position, False)
    return Started(after, True)


def _before_reset(items: list[Event | Reset], start: int) -> Iterator[Event]:
    for item in islice(items, start, None):
        if isinstance(item, Reset):
            return
        yield item


def _expire(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
