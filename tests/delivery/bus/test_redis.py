"""`realtime.delivery.bus.redis`: clusters and Sentinels; test_servers has what all buses do."""

import asyncio
import logging
from collections.abc import Iterator

import pytest
from django.test import override_settings
from redis.crc import key_slot

from realtime.delivery.bus import redis as redis_module
from realtime.delivery.bus.base import MISSED
from realtime.delivery.bus.redis import MAX_BYTES, RedisBus
from realtime.delivery.bus.redis_servers import to_channel

from ...support.bus_servers import (
    ValkeyCluster,
    ValkeyNode,
    ValkeySentinel,
    cluster_node,
    is_ready,
)
from ...support.buses import LOGGER, cursor, listening, send, tell_processes_apart
from ...support.servers import free_port, silent_port, wait_until

TOPICS = [f"room.{number}" for number in range(0, 400, 33)]  # on all nodes


@pytest.fixture(autouse=True)
def _apart(monkeypatch):
    tell_processes_apart(monkeypatch)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    made = ValkeyCluster()
    yield made
    made.stop()


async def all_are_heard(heard, topics=TOPICS):
    elsewhere = RedisBus(LOGGER)
    async with asyncio.timeout(40):
        for topic in topics:
            # While the others still agree on who it is, one may be told that there is none.
            while not await send(elsewhere, cursor(topic)):
                await asyncio.sleep(0.1)
            assert await heard.get() == (topic, [cursor(topic)])


def slot_of(topic: str) -> int:
    return key_slot(to_channel(topic).encode())


async def test_on_a_cluster_each_topic_is_on_its_node_alone(cluster):
    async with listening(RedisBus, {"REDIS_BUS_URL": cluster.url}, *TOPICS) as (bus, heard):
        await all_are_heard(heard)
        found = {
            channel.decode()
            for node in cluster.primaries
            for channel in node.client.execute_command("PUBSUB SHARDCHANNELS", "*room*")
        }
        assert found == set(map(to_channel, TOPICS))
        assert len(bus._listeners) == 3
        for node in cluster.nodes:
            assert node.client.pubsub_channels() == []  # none that go to all nodes
        bus.leave(TOPICS)
        await bus.settled()
        for node in cluster.primaries:
            assert node.client.execute_command("PUBSUB SHARDCHANNELS", "*room*") == []


async def test_a_slot_that_is_moved_takes_its_topics_along(cluster):
    async with listening(RedisBus, {"REDIS_BUS_URL": cluster.url}, *TOPICS) as (bus, heard):
        elsewhere = RedisBus(LOGGER)
        # With the slot of a node's echo, which is that of the topic joined first, all goes anew.
        echoes = {key_slot(each._echo.encode()) for each in bus._listeners.values()}
        moved = next(topic for topic in TOPICS if slot_of(topic) not in echoes)
        slot = slot_of(moved)
        source = cluster.owner_of(slot)
        target = next(node for node in cluster.primaries if node is not source)
        assert await send(elsewhere, cursor(moved))
        assert await heard.get() == (moved, [cursor(moved)])
        try:
            cluster.move_slot(slot, source, target)
            assert await heard.get() == (moved, MISSED)
            assert heard.empty()  # of the others nothing was missed
            await all_are_heard(heard)
            assert not bus.is_down
        finally:
            cluster.move_slot(slot, target, source)


async def test_a_topic_whose_slot_is_moved_as_it_is_left_takes_no_other_along(cluster):
    async with listening(RedisBus, {"REDIS_BUS_URL": cluster.url}, *TOPICS) as (bus, heard):
        bus.leave(TOPICS[:1])
        bus._note_change(to_channel(TOPICS[0]))  # in the same turn its server says so
        await bus.settled()
        bus.join(["room.last"])
        await bus.settled()
        assert await heard.get() == ("room.last", MISSED)
        assert not bus.is_down
        await all_are_heard(heard, TOPICS[1:])


async def test_a_node_that_is_killed_is_replaced_by_its_replica(cluster):
    async with listening(RedisBus, {"REDIS_BUS_URL": cluster.url}, *TOPICS) as (bus, heard):
        await all_are_heard(heard)
        killed = cluster.primaries[0]
        killed.kill()
        missed = set()
        async with asyncio.timeout(60):
            while missed != set(TOPICS):
                topic, message = await heard.get()
                assert message == MISSED
                missed.add(topic)
        await all_are_heard(heard)
        assert not bus.is_down
    await asyncio.to_thread(killed.start)
    await asyncio.to_thread(wait_until, cluster.has_replica, 30, "the other way round")


async def test_sentinels_say_which_server_it_is():
    servers = ValkeySentinel()
    try:
        url = {"REDIS_BUS_URL": servers.url}
        async with listening(RedisBus, url, "room.a", "room.b") as (_, heard):
            await all_are_heard(heard, ["room.a", "room.b"])
            servers.primary.kill()
            async with asyncio.timeout(60):
                assert {await heard.get(), await heard.get()} == {
                    ("room.a", MISSED),
                    ("room.b", MISSED),
                }
            await all_are_heard(heard, ["room.a", "room.b"])
            assert servers.replica.client.pubsub_numsub(to_channel("room.a"))[0][1] == 1
    finally:
        servers.stop()


@pytest.fixture
def sentinels() -> Iterator[ValkeySentinel]:
    made = ValkeySentinel()
    yield made
    made.stop()


@pytest.mark.parametrize("is_silent", [True, False])
async def test_a_sentinel_that_is_away_keeps_the_others_from_nothing(sentinels, is_silent):
    with silent_port() as port:
        first = port if is_silent else free_port()
        url = sentinels.url.replace("//", f"//127.0.0.1:{first},")
        limits = {"REDIS_BUS_URL": url, "ANNOUNCE_TIMEOUT_SECONDS": 1.0}
        async with asyncio.timeout(10), listening(RedisBus, limits, "room.a") as (_, heard):
            await all_are_heard(heard, ["room.a"])


async def test_a_url_that_is_silent_keeps_the_others_from_nothing():
    server = ValkeyNode()
    try:
        with silent_port() as port:
            url = f"redis://127.0.0.1:{port},{server.url}"
            limits = {"REDIS_BUS_URL": url, "ANNOUNCE_TIMEOUT_SECONDS": 1.0}
            async with asyncio.timeout(10), listening(RedisBus, limits, "room.a") as (_, heard):
                await all_are_heard(heard, ["room.a"])
    finally:
        server.stop()


async def test_a_primary_that_fell_silent_is_not_published_to_for_good(sentinels):
    limits = {"REDIS_BUS_URL": sentinels.url, "ANNOUNCE_TIMEOUT_SECONDS": 1.0}
    with override_settings(REALTIME=limits):
        elsewhere = RedisBus(LOGGER)
        assert await send(elsewhere, cursor("room.a"))
        sentinels.primary.suspend()
        try:
            async with asyncio.timeout(30):
                while not await send(elsewhere, cursor("room.a")):
                    await asyncio.sleep(0.1)
        finally:
            sentinels.primary.resume()
            await redis_module._senders.get().aclose()


async def test_a_node_of_a_cluster_that_does_not_say_its_address_is_where_it_was_asked():
    """As behind a load balancer."""
    server = cluster_node("--cluster-preferred-endpoint-type", "unknown-endpoint")
    try:
        server.client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16_383)
        await asyncio.to_thread(wait_until, lambda: is_ready(server))
        url = {"REDIS_BUS_URL": server.url}
        async with asyncio.timeout(20), listening(RedisBus, url, "room.a") as (_, heard):
            await all_are_heard(heard, ["room.a"])
    finally:
        server.stop()


async def test_a_password_is_in_no_log(caplog):
    caplog.set_level(logging.DEBUG)
    server = ValkeyNode("--user", "site", "on", ">se/cret", "~*", "&*", "+@all")
    try:
        url = server.url.replace("redis://", "redis://site:se%2Fcret@")
        async with listening(RedisBus, {"REDIS_BUS_URL": url}, "room.a") as (bus, heard):
            await all_are_heard(heard, ["room.a"])
            server.kill()
            while not bus.is_down:
                await asyncio.sleep(0.01)
            assert not await bus.send("room.a", [cursor("room.a")])
            assert not await send(RedisBus(LOGGER), cursor("room.a"))
            await asyncio.to_thread(server.start)
            wrong = url.replace("site:", "nobody:")
        assert "has no connection" in caplog.text
        assert wrong not in caplog.text
        assert "cret" not in caplog.text
    finally:
        server.stop()


async def test_a_url_that_says_nothing_ends_no_attempt(caplog):
    """Where the checks are skipped."""
    with override_settings(REALTIME={"REDIS_BUS_URL": "nonsense"}):
        bus = RedisBus(LOGGER)
        bus.start(lambda topic, message: None)
        bus.join(["room.a"])
        async with asyncio.timeout(2):
            await bus.settled()
        assert not bus._running.done()
        await bus.stop()
    assert "ValueError: REDIS_BUS_URL is none of" in caplog.text


async def test_what_is_large_goes_as_position_only():
    server = ValkeyNode()
    try:
        url = {"REDIS_BUS_URL": server.url}
        async with listening(RedisBus, url, "room.a") as (_, heard):
            assert await send(RedisBus(LOGGER), cursor("room.a", "1" * MAX_BYTES))
            assert await heard.get() == ("room.a", MISSED)
    finally:
        server.stop()


async def test_a_slow_subscriber_is_told_what_it_missed():
    """Redis ends its connection when too much is waiting to be sent to it."""
    server = ValkeyNode("--client-output-buffer-limit", "pubsub 1mb 1mb 1")
    try:
        url = {"REDIS_BUS_URL": server.url}
        async with listening(RedisBus, url, "room.a") as (bus, heard):
            elsewhere, event = RedisBus(LOGGER), cursor("room.a", f'"{"x" * 30_000}"')
            [listener] = bus._listeners.values()
            listener._connection._reader._transport.pause_reading()
            while not bus.is_down:
                assert await send(elsewhere, event)
            while await heard.get() != ("room.a", MISSED):
                pass
            await all_are_heard(heard, ["room.a"])
    finally:
        server.stop()
