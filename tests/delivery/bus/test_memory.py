"""`realtime.delivery.bus.memory`: where there is no other process, nothing is sent."""

import asyncio
import logging

import pytest
from channels.layers import InMemoryChannelLayer

from realtime.delivery.bus import make_bus
from realtime.delivery.bus.channels import ChannelsBus
from realtime.delivery.bus.memory import MemoryBus
from realtime.delivery.hub import get_hub
from realtime.delivery.publish import publish_now

from ...support.fakes import FakeLayer
from ...support.hubs import Reader, stage

LOGGER = logging.getLogger("realtime.hub")


class Remote(InMemoryChannelLayer):
    """A layer of a site's own, which may reach others in whatever way."""


@pytest.mark.parametrize(
    ("layer", "kind"),
    [(InMemoryChannelLayer(), MemoryBus), (Remote(), ChannelsBus), (FakeLayer(), ChannelsBus)],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_the_layer_chooses_the_bus(layer, kind):
    with stage(layer):
        assert type(make_bus(LOGGER)) is kind


def test_without_a_layer_it_is_the_memory_bus():
    with stage(CHANNEL_LAYER="none"):
        assert type(make_bus(LOGGER)) is MemoryBus


async def test_readers_of_the_process_hear_what_is_published():
    with stage(InMemoryChannelLayer()) as (layer, _):
        reader, hub = Reader(), get_hub()
        feed = await hub.attach("a", reader)
        event = await publish_now("a", 1)
        typing = await publish_now("a", 2, ephemeral=True)
        async with asyncio.timeout(15):
            while reader.got != [typing, event]:  # the first of a topic comes from the log
                await asyncio.sleep(0)
        assert layer.groups == {}
        hub.detach(feed, reader)
        assert hub._closing is not None
        await hub._closing
