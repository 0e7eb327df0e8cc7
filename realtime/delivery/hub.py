"""The hub: one per process, between the channel layer and the local subscribers.

It listens on a single layer channel for all its topics. Each topic with local subscribers has a
`Feed`: the topic's newest events and how far they reach. The layer may lose, repeat, reorder or
delay what it carries. Offsets tell: a repeated event is dropped, a gap is filled from the log, and
a regular look at the log's heads finds the announcement that was lost with none after it.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, TypeAlias

from channels.layers import get_channel_layer

from ..conf import settings
from ..eventlog import get_event_log
from ..events.event import Event, together
from ..events.position import START, Position
from ..utils.aio import spawn
from ..utils.cancellation import cancelled
from ..utils.threads import in_database_thread
from .announcements import HELLO_TYPE, from_message, to_message
from .fanout import Subscriber
from .feed import Feed
from .layer import Layer
from .peers import Company

logger = logging.getLogger("realtime.hub")

Look: TypeAlias = Callable[[Iterable[str]], Awaitable[None]]
LOOKS: Final[list[Look]] = []  # called with the topics that have readers, every HEAD_CHECK_SECONDS

MEMBERSHIP_BATCH: Final = 50  # group memberships changed at once
ANNOUNCED_EVENTS: Final = 100  # most that one message of the layer carries
ANNOUNCED_BYTES: Final = 65_536  # and their data's bytes
RETRY_SECONDS: Final = 1.0  # pause after an error of the channel layer


class Hub:
    """The process's feeds, kept up to date by the channel layer and the log."""

    def __init__(self) -> None:
        self.feeds: dict[str, Feed] = {}
        self.loop = asyncio.get_running_loop()
        layer = get_channel_layer(settings.CHANNEL_LAYER)
        self._layer = None if layer is None else Layer(layer)
        self._look = asyncio.Event()  # have a look at the heads now
        self._company = None if self._layer is None else Company(self._layer, self._look.set)
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: asyncio.Task[None] | None = None
        self._unwanted: set[str] = set()  # topics whose group the layer would not let us leave
        self._changed: dict[str, None] = {}  # topics whose membership in the layer may be wrong
        self._membership: asyncio.Task[None] | None = None
        self._outgoing: dict[str, deque[Event]] = {}  # waiting for the layer, by topic
        self._waiting = 0  # how many
        self._announcing: asyncio.Task[None] | None = None

    async def attach(self, topic: str, subscriber: Subscriber) -> Feed:
        """Serve `subscriber` from now on; returns once the topic's head is known."""
        feed = self.feeds.get(topic)
        if feed is None:
            if not self.feeds:
                self._start()
            feed = self.feeds[topic] = Feed(topic)
            feed.starting = spawn(self._start_feed(feed))
        feed.fanout.add(subscriber)
        assert feed.starting is not None
        try:
            if not feed.started:
                # Others may wait for the same start: it must outlive the one who leaves.
                await asyncio.shield(feed.starting)
        except BaseException:
            self.detach(feed, subscriber)
            raise
        return feed

    def detach(self, feed: Feed, subscriber: Subscriber) -> None:
        """Serve it no more; the last one takes the feed with it, and the last feed all."""
        feed.fanout.remove(subscriber)
        if feed.fanout or self.feeds.get(feed.topic) is not feed:
            return
        feed.close()
        del self.feeds[feed.topic]
        self._change_membership(feed.topic)
        if not self.feeds:
            self._stop()

    def announce(self, event: Event) -> None:
        """Deliver to the local readers, and tell the other processes, if there are any."""
        self.receive([event])
        if self._layer is None or (event.offset and not self._company):
            return
        if self._waiting >= settings.ANNOUNCE_QUEUE:
            self._layer.failed("is too slow", OverflowError("ANNOUNCE_QUEUE is full"))
            return
        self._outgoing.setdefault(event.topic, deque()).append(event)
        self._waiting += 1
        if self._announcing is None:
            self._announcing = spawn(self._announce(self._layer))

    def receive(self, events: Sequence[Event]) -> None:
        """Take announcements of one topic, wherever they came from."""
        feed = self.feeds.get(events[0].topic)
        if feed is not None:
            feed.offer(events)

    def catch_up(self) -> None:
        """Look at every topic's log now, without waiting for the next round."""
        for feed in self.feeds.values():
            feed.catch_up()

    # -- starting and stopping

    def _start(self) -> None:
        _hubs[self.loop] = self
        self._tasks = [spawn(self._watch())]
        if settings.PRUNE_INTERVAL_SECONDS is not None:
            self._tasks.append(spawn(self._prune(settings.PRUNE_INTERVAL_SECONDS)))
        if self._layer is not None and self._company is not None:
            self._tasks += [spawn(self._listen(self._layer)), spawn(self._company.greet())]

    def _stop(self) -> None:
        # Not looked up again: when there is something to serve, a new hub is made.
        if _hubs.get(self.loop) is self:
            del _hubs[self.loop]
        self._closing = spawn(self._close())

    async def _close(self) -> None:
        # First leave the groups: a layer may keep members that have gone for a day. It gets the
        # time it needs for that, unless it fails.
        while leaving := [task for task in (self._membership, self._announcing) if task]:
            seconds = settings.ANNOUNCE_TIMEOUT_SECONDS
            _, pending = await asyncio.wait(leaving, timeout=seconds)
            if pending and self._layer is not None and self._layer.is_away:
                break
        await cancelled(*self._tasks, *leaving)
        if self._company is not None and not leaving:
            await self._company.leave()

    async def _start_feed(self, feed: Feed) -> None:
        if self._layer is not None:
            # Membership first, then the head: what is appended after that look is announced to us.
            self._change_membership(feed.topic)
            try:
                async with asyncio.timeout(settings.ANNOUNCE_TIMEOUT_SECONDS):
                    await self._membership_settled()
            except TimeoutError:
                logger.warning("The channel layer does not answer; reading %s without", feed.topic)
        heads = await get_event_log().heads([feed.topic])
        feed.start(heads.get(feed.topic, START))

    # -- listening

    async def _listen(self, layer: Layer) -> None:
        while True:
            try:
                message = await layer.receive()
            except Exception as error:
                layer.failed("can't be listened to", error)
                await asyncio.sleep(RETRY_SECONDS)
                self._rejoin()
                continue
            try:
                if self._company is not None and message.get("type") == HELLO_TYPE:
                    self._company.hear(message)
                elif events := from_message(message):
                    self.receive(events)
            except Exception as error:
                logger.warning("Not an announcement of ours on the channel layer: %r", error)
            # receive() does not wait while there are messages: without this, a flood of them
            # would keep the loop from doing anything else.
            await asyncio.sleep(0)

    async def _watch(self) -> None:
        """Find what the layer lost, renew memberships."""
        since_refresh, next_round = 0.0, self.loop.time()
        is_asked = False
        while True:
            interval = settings.HEAD_CHECK_SECONDS
            if not is_asked:
                next_round = self.loop.time() + interval
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_round):
                    await self._look.wait()
            is_asked = self._look.is_set()  # between two rounds
            self._look.clear()
            try:
                await self._check_heads()
                if is_asked:
                    continue
                for look in LOOKS:
                    await look(list(self.feeds))
                since_refresh += interval
                if since_refresh >= settings.GROUP_REFRESH_SECONDS:
                    since_refresh = 0.0
                    self._rejoin()
            except Exception:
                logger.warning("Can't look at the log; trying again", exc_info=True)

    async def _prune(self, interval: float) -> None:
        """Apply retention; beside the look at the heads, since it may take minutes."""
        global _pruned
        while True:
            # Counted across hubs: on a quiet site, readers come and go before the time is up.
            now = time.monotonic()
            _pruned = _pruned or now
            await asyncio.sleep(max(0.0, _pruned + interval - now))
            _pruned = time.monotonic()
            try:
                await in_database_thread(get_event_log().prune)
            except Exception:
                logger.warning("Can't prune the log; trying again", exc_info=True)

    async def _check_heads(self) -> None:
        heads: Mapping[str, Position] = await get_event_log().heads(list(self.feeds))
        while self._unwanted:
            self._change_membership(self._unwanted.pop())
        for topic, feed in list(self.feeds.items()):
            if feed.compare(heads.get(topic, START)):
                # Perhaps the layer has forgotten that we listen (a restarted Redis has).
                feed.joined = False
            if not feed.joined:
                self._change_membership(topic)

    # -- membership of the layer's groups

    def _rejoin(self) -> None:
        if self._company is not None:
            self._company.ask()
        for topic, feed in self.feeds.items():
            feed.joined = False
            self._change_membership(topic)

    def _change_membership(self, topic: str) -> None:
        """Make the layer's groups agree with `feeds`, in one task so that the last word counts."""
        if self._layer is None:
            return
        self._changed[topic] = None
        if self._membership is None:
            self._membership = spawn(self._update_membership(self._layer))

    async def _membership_settled(self) -> None:
        while self._membership is not None:
            await asyncio.shield(self._membership)

    async def _update_membership(self, layer: Layer) -> None:
        try:
            await layer.ready()
            while self._changed:
                topics = list(islice(self._changed, MEMBERSHIP_BATCH))
                for topic in topics:
                    del self._changed[topic]
                await asyncio.gather(*(self._update_member(layer, topic) for topic in topics))
        finally:
            self._membership = None

    async def _update_member(self, layer: Layer, topic: str) -> None:
        # Where it fails, the next look at the heads tries again.
        feed = self.feeds.get(topic)
        if feed is None:
            if not await layer.leave(topic):
                self._unwanted.add(topic)
        elif await layer.join(topic):
            feed.joined = True
            if feed.started:
                feed.catch_up()  # what was announced while we were no member

    # -- announcing

    async def _announce(self, layer: Layer) -> None:
        try:
            while self._outgoing:
                events = self._next_outgoing()
                await layer.send(events[0].topic, to_message(events))
        finally:
            self._announcing = None

    def _next_outgoing(self) -> list[Event]:
        """What one topic has waiting, as far as one message may carry it."""
        topic = next(iter(self._outgoing))
        waiting = self._outgoing.pop(topic)
        events = together(waiting, ANNOUNCED_EVENTS, ANNOUNCED_BYTES)
        for _ in events:
            waiting.popleft()
        if waiting:
            self._outgoing[topic] = waiting  # behind the other topics
        self._waiting -= len(events)
        return events


async def positions_now(topics: Sequence[str]) -> dict[str, Position]:
    """Where each topic stands, without subscribing: from memory where it is served here."""
    hub = _hubs.get(asyncio.get_running_loop())
    feeds = hub.feeds if hub is not None else {}
    positions = {topic: feeds[topic].position for topic in topics if _is_served(feeds, topic)}
    if unknown := [topic for topic in topics if topic not in positions]:
        heads = await get_event_log().heads(unknown)
        positions |= {topic: heads.get(topic, START) for topic in unknown}
    return positions


def _is_served(feeds: Mapping[str, Feed], topic: str) -> bool:
    return topic in feeds and feeds[topic].started


_pruned = 0.0  # when this process last applied retention, by the monotonic clock
_hubs: dict[asyncio.AbstractEventLoop, Hub] = {}


def get_hub() -> Hub:
    """The hub of the running event loop; a server process has one loop and so one hub."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    return hub if hub is not None else Hub()


def running_hubs() -> list[Hub]:
    """The hubs of this process that have something to serve."""
    return [hub for loop, hub in list(_hubs.items()) if loop.is_running()]
