"""The hub: one per event loop that serves readers, between the bus and its subscriptions.

Each topic with readers has a `Feed`. The hub hands it what the bus brings, and compares it with the
log again and again: that finds an announcement that was lost with none after it.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Final

from django.dispatch import Signal

from ..conf import settings
from ..eventlog import get_event_log
from ..eventlog.pruner import pruner
from ..events.event import Event
from ..events.position import START, Position
from ..metrics.cells import Kind
from ..metrics.series import Counter, Gauge
from ..processes.status import get_status
from ..utils.aio import PerLoop, cancel_and_wait, spawn
from .bus import make_bus
from .bus.base import Joined, Message
from .feed import Feed
from .head_check import HeadCheck
from .outbox import Outbox
from .peers import NEW_CHECK_SECONDS, Peers
from .synced import Subscriber

logger = logging.getLogger("realtime.hub")

CLOSE_SECONDS: Final = 5.0  # for the hubs of a loop that ends

heads_checked: Final = Signal()
"""Sent with the `topics` that have readers here, every `HEAD_CHECK_SECONDS`; async receivers are
awaited. They delay no check, and are not called again before all have ended."""


class Hub:
    """The feeds of one event loop, kept up to date by the bus and the log."""

    def __init__(self) -> None:
        self.feeds: dict[str, Feed] = {}
        self.lagging_topics: set[str] = set()  # topics that have readers which are notified
        self.loop = asyncio.get_running_loop()
        self.bus = make_bus(logger, is_listening=True)
        self.outbox = Outbox(self.bus)
        self._head_check = HeadCheck(self.feeds)
        self.peers = Peers(self.bus, on_return=self._head_check.request)
        self._tasks: list[asyncio.Task[None]] = []
        self._signal: asyncio.Task[object] | None = None  # `heads_checked`, while it is sent
        self._closing: asyncio.Task[None] | None = None

    async def attach(self, topic: str, subscriber: Subscriber) -> Feed:
        """Serve `subscriber` from now on; return once the topic's head is known."""
        feed = self.feeds.get(topic)
        if feed is None:
            if not self.feeds:
                self._start()
            feed = Feed(topic, self.lagging_topics, is_authentic=self.bus.is_authentic)
            self.feeds[topic] = feed
            self._head_check.add(topic)
            feed.starting = spawn(self._start_feed(feed))
        feed.fanout.add(subscriber)
        SUBSCRIPTIONS.inc()
        try:
            if not feed.is_started:
                assert feed.starting is not None
                # Others may wait for the same start: it must outlive one that leaves.
                await asyncio.shield(feed.starting)
        except BaseException:
            self.detach(feed, subscriber)
            raise
        return feed

    def detach(self, feed: Feed, subscriber: Subscriber) -> None:
        """Serve it no more. The last subscriber closes the feed; the last feed stops the hub."""
        feed.fanout.remove(subscriber)
        SUBSCRIPTIONS.dec()
        if feed.fanout or self.feeds.get(feed.topic) is not feed:
            return
        feed.close()
        del self.feeds[feed.topic]
        self._head_check.discard(feed.topic)
        self.bus.leave([feed.topic])
        if not self.feeds:
            self._stop()

    def receive(self, topic: str, events: Sequence[Event]) -> None:
        """Offer announced events, of this process or of another one, to the topic's feed."""
        feed = self.feeds.get(topic)
        if feed is not None:
            feed.offer(events)

    # -- starting and stopping

    def _start(self) -> None:
        _hubs[self.loop] = self
        self._open = _open.get()
        self._open.add(self)
        self._tasks = [spawn(self._check_heads_regularly())]
        if settings.PRUNE_INTERVAL_SECONDS is not None:
            self._tasks.append(spawn(pruner.run(settings.PRUNE_INTERVAL_SECONDS)))
        self.bus.start(self._on_message)
        if self.peers.is_active:
            self._tasks.append(spawn(self.peers.run()))

    def _stop(self) -> None:
        # Not looked up again: when there is something to serve, a new hub is made.
        if _hubs.get(self.loop) is self:
            del _hubs[self.loop]
        self._closing = spawn(self._close())

    async def _close(self) -> None:
        await cancel_and_wait(*self._tasks)
        if self._signal is not None:
            await cancel_and_wait(self._signal)
        await self.bus.stop()
        if not running_hubs():
            await self.peers.leave()
        self._open.discard(self)

    async def closed(self) -> None:
        """Close at the end of the loop, which has cancelled all tasks, a closing among them."""
        if self._closing is not None:
            await asyncio.wait([self._closing])
        if self in self._open:
            self._stop()
            assert self._closing is not None
            await self._closing

    async def _start_feed(self, feed: Feed) -> None:
        # Joined first, then the head: what is appended after that read is announced to us. And
        # before that the row, or others that believe themselves alone would not announce it.
        await self.peers.registered()
        self.bus.join([feed.topic])
        try:
            async with asyncio.timeout(settings.ANNOUNCE_TIMEOUT_SECONDS):
                await self.bus.settled()
        except TimeoutError:
            logger.warning("The %s does not answer; reading %s without", self.bus.name, feed.topic)
        feed.expect_head()
        heads = await get_event_log().heads([feed.topic])
        feed.start(heads.get(feed.topic, START))
        feed.starting = None  # a task takes more memory than all else of an idle topic

    # -- listening

    def _on_message(self, topic: str, message: Message) -> None:
        if isinstance(message, Joined):
            self.peers.receive(message)
        elif message:
            if self.bus.is_authentic:
                get_event_log().note_stored(message)
            self.receive(topic, message)
        else:  # `MISSED`: the topic was joined; what was announced before may be missing
            feed = self.feeds.get(topic)
            if feed is not None and feed.is_started:
                self._head_check.request(topic)
            elif feed is not None:
                feed.catch_up()  # once it has started

    async def _check_heads_regularly(self) -> None:
        next_check = self.loop.time() + settings.HEAD_CHECK_SECONDS
        while True:
            check = next_check
            if self.peers.is_new:
                check = min(check, self.loop.time() + NEW_CHECK_SECONDS)
            await self._head_check.requested(until=check)
            is_regular = self.loop.time() >= next_check
            if is_regular:
                self._note_status(self.loop.time() - next_check)
            try:
                await self._check_heads(is_regular)
                if is_regular:
                    self._send_signal()
            except Exception:
                logger.warning("Can't check the log's heads; trying again", exc_info=True)
            if is_regular:
                next_check = self.loop.time() + settings.HEAD_CHECK_SECONDS

    def _send_signal(self) -> None:
        # Not awaited: a receiver may wait for a database that the log has no part of.
        if self._signal is None or self._signal.done():
            self._signal = spawn(heads_checked.asend_robust(Hub, topics=list(self.feeds)))

    def _note_status(self, lag: float) -> None:
        status, failure = get_status(), self.bus.failure
        status.loop_lag = lag
        status.bus_failure = "" if failure is None else type(failure).__name__

    async def _check_heads(self, is_regular: bool) -> None:
        check = self._head_check.find_missed
        missed = await check(is_regular=is_regular, is_thorough=self.peers.is_new)
        LOST.add(len(missed))
        for topic in missed:
            # Perhaps the bus has forgotten that we listen (a restarted Redis has).
            self.bus.leave([topic])
            self.bus.join([topic])


async def positions_now(topics: Sequence[str]) -> dict[str, Position]:
    """Return where each topic stands; from memory where it is served here."""
    hub = _hubs.get(asyncio.get_running_loop())
    feeds = hub.feeds if hub is not None else {}
    positions = {
        topic: feeds[topic].position
        for topic in topics
        if topic in feeds and feeds[topic].is_started
    }
    if unknown := [topic for topic in topics if topic not in positions]:
        heads = await get_event_log().heads(unknown)
        positions |= {topic: heads.get(topic, START) for topic in unknown}
    return positions


async def _close_all(hubs: set[Hub]) -> None:
    # Not cancelled after that: what ignores it would keep the loop from its end.
    if closing := [spawn(hub.closed()) for hub in hubs]:
        await asyncio.wait(closing, timeout=CLOSE_SECONDS)


_open: Final = PerLoop[set[Hub]](set, _close_all)  # started, and not closed yet
_hubs: Final[dict[asyncio.AbstractEventLoop, Hub]] = {}
if hasattr(os, "register_at_fork"):  # a loop that was copied looks as if it ran
    os.register_at_fork(after_in_child=_hubs.clear)


def get_hub() -> Hub:
    """Return the hub of the running event loop; a server process has one loop and so one hub."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    return hub if hub is not None else Hub()


def running_hubs() -> list[Hub]:
    """Return the hubs of this process that have something to serve."""
    return [hub for loop, hub in list(_hubs.items()) if loop.is_running()]


def _topics_served() -> int:
    return sum(len(hub.feeds) for hub in running_hubs())


def _slow_readers() -> int:
    return sum(
        hub.feeds[topic].slow_readers()
        for hub in running_hubs()
        for topic in hub.lagging_topics & hub.feeds.keys()
    )


def _is_layer_up() -> int:
    return int(not any(hub.bus.is_down for hub in running_hubs()))


LOST: Final = Counter(
    "realtime_announcements_lost_total",
    "Times that a topic with readers had events in the log that nobody had announced here: found "
    "by the head check. Beside a few that were under way, and those of publishers that no bus "
    "reaches, it shows a bad bus.",
)
SUBSCRIPTIONS: Final = Gauge(
    "realtime_subscriptions", "Topics that are read, counted for each reader."
)
TOPICS: Final = Gauge(
    "realtime_topics_served",
    "Topics with readers; one that has some in two processes counts twice.",
    read=_topics_served,
)
SLOW: Final = Gauge(
    "realtime_slow_readers", "Readers that are behind their topic.", read=_slow_readers
)
LAYER_UP: Final = Gauge(
    "realtime_layer_up",
    "1 where the bus works in all processes, 0 where it does not in one.",
    read=_is_layer_up,
    kind=Kind.MIN,
)
