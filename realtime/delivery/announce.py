"""Announce events: to this process's hubs at once, and over the bus to the other processes.

Nothing is lost if that fails: durable events are in the log, where every hub finds them.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Generator, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

from asgiref.sync import async_to_sync

from ..events.event import Event
from ..utils.aio import spawn
from .bus import make_bus
from .hub import Hub, running_hubs
from .outbox import Outbox

logger = logging.getLogger("realtime.publishing")

SILENT_SECONDS: Final = 10.0  # a bus that has timed out is left alone for so long

ByTopic: TypeAlias = Mapping[str, Sequence[Event]]


def announce(events: Sequence[Event]) -> Awaitable[None]:
    """Deliver events to this process's readers and send them to the other processes.

    From a thread or an event loop. Where this process listens, its hub sends them and the
    caller does not wait. Where it does not, a thread waits here until the bus has taken them, for
    `ANNOUNCE_TIMEOUT_SECONDS` at most; code in an event loop awaits what is returned, since the
    loop may end with it. To cancel that takes nothing back.
    """
    topics = _by_topic(events)
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    hubs = running_hubs()
    for hub in hubs:
        # The first one sends them to the others.
        take = partial(_take, hub, topics, hub is hubs[0])
        if hub.loop is here:
            take()
        else:
            hub.loop.call_soon_threadsafe(take)
    if hubs or not events:
        return Done()
    if here is None:
        async_to_sync(_send_and_wait)(topics)
        return Done()
    return asyncio.shield(spawn(_send_and_wait(topics)))


class Done:
    """An awaitable of what is done already."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


class Announcement:
    """Announce an event once it is stored; await this to wait until the bus has taken it."""

    _sent: Awaitable[None] | None = None

    def __call__(self, event: Event) -> None:
        self._sent = announce([event])

    def __await__(self) -> Generator[None, None, None]:
        if self._sent is not None:
            yield from self._sent.__await__()


class Silence:
    """Until when the bus is not asked again, in a process that does not listen.

    Of the process and not of a loop: each `async_to_sync` has a loop of its own.
    """

    def __init__(self) -> None:
        self._until = 0.0  # by the monotonic clock

    @property
    def is_over(self) -> bool:
        """Return whether the bus may be asked."""
        return time.monotonic() >= self._until

    def begin(self) -> None:
        """Leave the bus alone for `SILENT_SECONDS`: each publisher would wait for it."""
        self._until = time.monotonic() + SILENT_SECONDS


_silence: Final = Silence()


async def _send_and_wait(topics: ByTopic) -> None:
    if not _silence.is_over:
        return
    bus = make_bus(logger)
    if bus.is_local:
        return
    outbox = Outbox(bus)
    for topic, events in topics.items():
        outbox.put(topic, events)
    await outbox.sent()
    if isinstance(bus.failure, TimeoutError):
        _silence.begin()


def _take(hub: Hub, topics: ByTopic, sends: bool) -> None:
    """Deliver to a hub's readers; if it `sends`, to the other processes too."""
    for topic, events in topics.items():
        hub.receive(topic, events)
        if sends and (others := _for_peers(hub, events)):
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
    topics: dict[str, list[Event]] = {}
    for event in events:
        topics.setdefault(event.topic, []).append(event)
    return topics
