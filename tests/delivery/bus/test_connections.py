"""Connections to Redis that are silent, and whose they are."""

import asyncio
import logging
from functools import partial

import pytest
from channels.layers import InMemoryChannelLayer, get_channel_layer
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

from realtime.delivery.bus import make_bus
from realtime.delivery.bus.base import MISSED, Message
from realtime.delivery.bus.connections import close_connections, listening_layer
from realtime.events.event import Event

from ...chaos.proxy import Proxy
from ...support.attempts import three_tries_of
from ...support.hubs import from_elsewhere, stage

CURSOR = Event("room.a", "cursor", "true")
KINDS = [RedisChannelLayer, RedisPubSubChannelLayer]


@pytest.fixture(autouse=True)
def _redis_knows_its_version(monkeypatch):
    # redis-py looks it up on the disk for each connection, which blocks the loop: not our doing.
    monkeypatch.setattr("redis.utils.get_lib_version", lambda: "0")


@pytest.mark.parametrize("fault", [Proxy.silence, Proxy.half_open])
@pytest.mark.parametrize("kind", KINDS)
async def test_silent_connections_to_redis_are_replaced(kind, fault, valkey):
    elsewhere = kind(hosts=[{"address": valkey.url, "socket_timeout": 15.0}])
    async with Proxy(partial(asyncio.open_connection, "127.0.0.1", valkey.port)) as proxy:
        address = f"redis://127.0.0.1:{proxy.port}/0"
        layer = kind(hosts=[{"address": address, "socket_timeout": 15.0}])

        async def replace() -> None:
            heard: asyncio.Queue[tuple[str, Message]] = asyncio.Queue()
            proxy.heal()
            bus = make_bus(logging.getLogger("realtime.hub"), is_listening=True)
            bus.start(lambda topic, message: heard.put_nowait((topic, message)))
            bus.join(["room.a"])
            try:
                async with asyncio.timeout(20):
                    assert await heard.get() == ("room.a", MISSED)
                    fault(proxy)
                    assert await heard.get() == ("room.a", MISSED)
                    await elsewhere.group_send("room.a", from_elsewhere(CURSOR))
                    assert await heard.get() == ("room.a", [CURSOR])
                    assert await bus.send("room.a", [CURSOR])
            finally:
                await bus.stop()

        with stage(layer, HEAD_CHECK_SECONDS=0.5, ANNOUNCE_TIMEOUT_SECONDS=1.0):
            await three_tries_of(replace)
        for each in (layer, elsewhere):
            await close_connections(each)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_site_s_own_consumers_keep_their_connections(kind, settings, valkey):
    """Their layer is another one than that whose connections are closed."""
    backend = f"{kind.__module__}.{kind.__qualname__}"
    config = {"hosts": [{"address": valkey.url, "socket_timeout": 15.0}]}
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": config}}
    layer = get_channel_layer()
    assert layer is not None
    channel = await layer.new_channel()
    receiving = asyncio.create_task(layer.receive(channel))
    await asyncio.sleep(0.1)
    assert listening_layer() is listening_layer() is not layer
    await close_connections(listening_layer())
    await layer.send(channel, {"type": "theirs"})
    async with asyncio.timeout(10):
        assert (await receiving)["type"] == "theirs"
    await close_connections(layer)


async def test_a_layer_whose_connections_can_t_be_closed_is_shared():
    with stage(InMemoryChannelLayer()) as (layer, _):
        assert listening_layer() is layer
        channel = await layer.new_channel()
        await layer.group_add("a", channel)
        await close_connections(layer)
        assert layer.groups
