"""What an idle topic and a subscriber take: with a million of them, each byte is a megabyte."""

import asyncio
import gc
import tracemalloc
from collections.abc import Sequence

from channels.layers import InMemoryChannelLayer

from realtime.delivery.hub import get_hub
from realtime.delivery.subscription import Subscription
from realtime.events.event import Event
from realtime.events.position import Position

from ..support.hubs import stage

COUNT = 5_000
TOPIC_BYTES = 2_048
SUBSCRIBER_BYTES = 600


class Nobody:
    """Reads a topic and takes no memory."""

    __slots__ = ()

    def notify(self, events: Sequence[Event]) -> None:
        pass

    def unsynced(self, position: Position, events: Sequence[Event]) -> None:
        raise NotImplementedError


def traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def measure() -> tuple[float, float]:
    """The bytes of a topic without its reader, and of a reader without its topic."""
    hub, nobody = get_hub(), Nobody()
    kept = await hub.attach("a", nobody)
    names = [f"user.{number}" for number in range(COUNT)]
    before = traced()
    feeds = [await hub.attach(name, nobody) for name in names]
    topic = (traced() - before) / COUNT
    before = traced()
    subscriptions = [Subscription() for _ in range(COUNT)]
    for subscription in subscriptions:
        await subscription.add("a")
    subscriber = (traced() - before) / COUNT
    for subscription in subscriptions:
        subscription.close()
    for feed in [kept, *feeds]:
        hub.detach(feed, nobody)
    return topic, subscriber


def test_an_idle_topic_and_a_subscriber_take_no_more_than_this():
    with stage(InMemoryChannelLayer()), asyncio.Runner(debug=False) as runner:
        tracemalloc.start()
        try:
            topic, subscriber = runner.run(measure())
        finally:
            tracemalloc.stop()
    assert topic <= TOPIC_BYTES
    assert subscriber <= SUBSCRIBER_BYTES
