"""Announce events: to this process's hubs at once, and over the bus to the other processes.

Nothing is lost if that fails: durable events are in the log, where every hub finds them.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Generator, Mapping, Sequence
from typing import Final, TypeAlias

from asgiref.sync import async_to_sync

from ..events.event import Event
from ..utils.aio import spawn
from .bus import make_bus
from .hub import Hub, running_hubs
from .outbox import MESSAGE_EVENTS, Outbox
from .published import PUBLISHED, Via, published_via

logger = logging.getLogger("realtime.publishing")

OPEN_SECONDS: Final = 10.0  # for which a bus that has timed out is not called

ByTopic: TypeAlias = Mapping[str, Sequence[Event]]


def announce(events: Sequence[Event], via: Via | None = None) -> Awaitable[None]:
    """Deliver events to this process's readers and send them to the other processes.

    From a thread or an event loop. Where this process listens, its hub sends them and the
    caller does not wait. Where it does not, a thread waits here until the bus has taken them, for
    `ANNOUNCE_TIMEOUT_SECONDS` at most; code in an event loop awaits what is returned, since the
    loop may end with it. To cancel that takes nothing back. `via` is what they are counted by.
    """
    PUBLISHED.add(len(events), via or published_via.get())
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    hubs = running_hubs()
    # In parts, or a large transaction's events would hold up each hub's loop.
    for start in range(0, len(events), MESSAGE_EVENTS):
        part = _by_topic(events[start : start + MESSAGE_EVENTS])
        for hub in hubs:
            if hub.loop is here:
                _deliver(hub, part, hub is hubs[0])
            else:
                hub.loop.call_soon_threadsafe(_deliver, hub, part, hub is hubs[0])
    if hubs or not events:
        return Done()
    topics = _by_topic(events)
    if here is None:
        async_to_sync(_send_and_wait)(topics)
        return Done()
    return asyncio.shield(spawn(_send_and_wait(topics)))


class Done:
    """What to await where nothing is left to wait for."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


class Announcement:
    """Announce events once they are stored; await this to wait until the bus has taken them."""

    via: Via = "code"  # it is called in another context than the publisher's
    _sent: Awaitable[None] | None = None

    def __call__(self, events: Sequence[Event]) -> None:
        self._sent = announce([event for event in events if not event.is_repeated], self.via)

    def __await__(self) -> Generator[None, None, None]:
        if self._sent is not None:
            yield from self._sent.__await__()


class CircuitBreaker:
    """Spares the publishers of a process that does not listen the wait for a bus that is down."""

    def __init__(self) -> None:
        self._until = 0.0  # by the monotonic clock

    @property
    def is_open(self) -> bool:
        """Return whether the bus is not to be called."""
        return time.monotonic() < self._until

    def open(self) -> None:
        """Have the bus not called for `OPEN_SECONDS`."""
        self._until = time.monotonic() + OPEN_SECONDS


# Of the process and not of a loop: each `async_to_sync` has a loop of its own.
_breaker: Final = CircuitBreaker()


async def _send_and_wait(topics: ByTopic) -> None:
    if _breaker.is_open:
        return
    bus = make_bus(logger)
    if bus.is_local:
        return
    outbox = Outbox(bus)
    for topic, events in topics.items():
        outbox.put(topic, events)
        await outbox.sent()
        if bus.is_down:
            break
    if isinstance(bus.failure, TimeoutError):
        _breaker.open()


def _deliver(hub: Hub, topics: ByTopic, is_sender: bool) -> None:
    """Deliver to a hub's readers and, if it is the one that sends, to the other processes."""
    for topic, events in topics.items():
        hub.receive(topic, events)
        if is_sender and (others := _for_peers(hub, events)):
            hub.outbox.put(topic, others)


def _for_peers(hub: Hub, events: Sequence[Event]) -> Sequence[Event]:
    """Return the events that the other processes need."""
    if hub.bus.is_local:
        return ()
    if hub.bus.echoes_to_sender and hub.peers.is_alone:
        # A peer that comes finds the durable ones in the log.
        return [event for event in events if not event.offset]
    return events


def _by_topic(events: Sequence[Event]) -> ByTopic:
    if len(events) == 1:
        return {events[0].topic: events}
    topics: dict[str, list[Event]] = {}
    for event in events:
        topics.setdefault(event.topic, []).append(event)
    return topics
