"""`realtime.delivery.bus.channels`: groups of a layer that fails, hangs and forgets."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer
from cryptography.fernet import InvalidToken

from realtime.delivery.bus.base import MISSED, PEERS_TOPIC, Joined, Message
from realtime.delivery.bus.channels import ChannelsBus
from realtime.delivery.bus.envelope import to_message
from realtime.delivery.bus.serializer import FORMAT
from realtime.events.event import Event
from realtime.processes.registry import this_process

from ...support.clock import InstantLoop
from ...support.fakes import FakeLayer, Noise
from ...support.hubs import from_elsewhere, stage, turns

LOGGED = Event("room.a", "message", '{"a":"ž"}', "abcd1234", 2**63 - 1)
EPHEMERAL = Event("room.a", "typing", "true")
WITH_META = Event("room.a", "message", "1", "abcd1234", 1, '{"sender":"ž"}')
JOINED = Joined("other.1")
Play = Callable[[ChannelsBus, FakeLayer, list[tuple[str, Message]]], Awaitable[None]]


def run(play: Play, layer: FakeLayer | None = None, **constants: Any) -> None:
    """Play with a bus that has started; it stops at the end and leaves no task."""

    async def main() -> None:
        fake, heard = layer or FakeLayer(), []
        bus = ChannelsBus(fake, logging.getLogger("realtime.hub"))
        bus.start(lambda topic, message: heard.append((topic, message)))
        await turns()
        await play(bus, fake, heard)
        await bus.stop()
        await asyncio.sleep(10)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with stage(**constants), asyncio.Runner(loop_factory=InstantLoop) as runner:
        runner.run(main())


@pytest.fixture(autouse=True)
def _redis_knows_its_version(monkeypatch):
    # redis-py looks it up on the disk for each connection, which blocks the loop: not our doing.
    monkeypatch.setattr("redis.utils.get_lib_version", lambda: "0")


# -- listening


def test_what_is_sent_to_a_joined_topic_is_heard():
    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        bus.join(["room.a"])
        await bus.settled()
        assert heard == [("room.a", MISSED)]
        await layer.group_send("room.a", from_elsewhere(LOGGED, EPHEMERAL))
        await turns()
        assert heard[1:] == [("room.a", [LOGGED, EPHEMERAL])]
        bus.leave(["room.a"])
        await bus.settled()
        assert layer.groups == {}

    run(play)


def test_what_this_process_sends_is_not_heard():
    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        bus.join(["room.a", PEERS_TOPIC])
        await bus.settled()
        heard.clear()
        assert await bus.send("room.a", [LOGGED])
        assert await bus.send(PEERS_TOPIC, Joined(this_process()))
        await turns()
        assert heard == []
        assert bus.echoes_to_sender  # the layer has brought it all the same

    run(play)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "somebody.else"},
        {"type": "realtime.event", "topic": "a"},
        {"type": "realtime.hello"},
        {**from_elsewhere(LOGGED), "events": [{"offset": "one"}]},
        "not even a dict",
    ],
    ids=range(5),
)
def test_a_message_of_another_kind_ends_no_listening(message, caplog):
    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        bus.join(["a"])
        await bus.settled()
        heard.clear()
        await layer.group_send("a", message)
        await layer.group_send("a", from_elsewhere(LOGGED))
        await turns()
        assert heard == [("room.a", [LOGGED])]

    run(play)


def test_a_flood_of_messages_lets_the_loop_run_in_between():
    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        bus.join(["a"])
        await bus.settled()
        heard.clear()
        for _ in range(100):
            layer.channels[bus._channel].put_nowait(from_elsewhere(LOGGED))
        await turns(20)
        assert 0 < len(heard) < 50

    run(play)


def test_what_does_not_authenticate_is_dropped_and_holds_nothing_up(caplog):
    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        bus.join(["a"])
        await bus.settled()
        heard.clear()
        layer.calls.clear()
        began = asyncio.get_running_loop().time()
        for _ in range(100):
            await layer.group_send("a", InvalidToken())
        await layer.group_send("a", from_elsewhere(LOGGED))
        await turns(300)
        assert heard == [("room.a", [LOGGED])]
        assert bus.dropped.count == 100
        assert not bus.is_down
        assert asyncio.get_running_loop().time() == began
        assert {call for call, _ in layer.calls} == {"group_send"}  # nothing is joined anew

    run(play)
    assert len(caplog.records) == 1
    assert "not encrypted with a key of this site" in caplog.text


@pytest.mark.parametrize("form", ["msgpack", FORMAT])
@pytest.mark.parametrize("kind", [RedisChannelLayer, RedisPubSubChannelLayer])
async def test_nobody_who_can_write_to_redis_forges_an_event_or_reads_one(
    kind, form, valkey, caplog
):
    """Plain messages, encrypted ones of others, and bytes; those with an old key are ours."""
    hosts = [{"address": valkey.url, "socket_timeout": 15.0}]
    plain = kind(hosts=hosts)
    ours, older, theirs = (
        kind(hosts=hosts, serializer_format=form, symmetric_encryption_keys=keys)
        for keys in (["new", "old"], ["old"], ["theirs"])
    )
    heard: list[Any] = []
    has_heard = asyncio.Event()
    bus = ChannelsBus(ours, logging.getLogger("realtime.hub"))

    def on_message(topic: str, message: Message) -> None:
        heard.append((topic, message))
        has_heard.set()

    bus.start(on_message)
    bus.join(["room.a"])
    await bus.settled()
    heard.clear()
    has_heard.clear()
    forged = from_elsewhere(Event("room.a", "message", '"forged"', "abcd1234", 7))
    await plain.group_send("room.a", forged)
    await theirs.group_send("room.a", forged)
    await older.group_send("room.a", from_elsewhere(LOGGED))
    async with asyncio.timeout(10):
        await has_heard.wait()
    assert heard == [("room.a", [LOGGED])]
    assert bus.dropped.count == 2
    assert not bus.is_down
    sent = ours.serialize(to_message("room.a", [LOGGED]))
    assert b"message" not in sent
    assert LOGGED.data.encode() not in sent
    await bus.stop()
    for layer in (ours, older, theirs, plain):
        await (getattr(layer, "close_pools", None) or layer.flush)()


# -- a layer that fails


@pytest.mark.parametrize("how", ["down", "hanging"])
def test_a_failure_of_the_layer_is_logged_once_and_its_return_once(how, caplog):
    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        setattr(layer, how, True)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(3):
            assert not await bus.send("a", [LOGGED])
        assert bus.is_down
        assert loop.time() - began <= 3 * 2.0 + 0.1
        setattr(layer, how, False)
        assert await bus.send("a", [LOGGED])
        assert bus.is_down  # until something has come back
        await asyncio.sleep(5)
        assert not bus.is_down

    run(play, ANNOUNCE_TIMEOUT_SECONDS=2.0)
    said = [record.getMessage() for record in caplog.records if record.name == "realtime.hub"]
    assert len(said) == 2
    assert said[0].startswith("The channel layer takes no announcements")
    assert said[1] == "The channel layer works again."


def test_a_topic_that_could_not_be_joined_is_joined_when_the_layer_is_back():
    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        layer.down = True
        bus.join(["a"])
        await bus.settled()
        assert heard == []
        layer.down = False
        await asyncio.sleep(1.1)
        assert heard == [("a", MISSED)]
        assert set(layer.groups) == {"a"}

    run(play, HEAD_CHECK_SECONDS=1.0)


def test_a_topic_that_could_not_be_left_is_left_when_the_layer_is_back():
    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        bus.join(["a"])
        await bus.settled()
        layer.down = True
        bus.leave(["a"])
        await bus.settled()
        assert set(layer.groups) == {"a"}
        layer.down = False
        await asyncio.sleep(1.1)
        assert layer.groups == {}

    run(play, HEAD_CHECK_SECONDS=1.0)


def test_topics_are_joined_anew_after_listening_has_failed():
    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        bus.join(["a", "b"])
        await bus.settled()
        layer.fail()
        layer.recover()
        await asyncio.sleep(2)
        assert set(layer.groups) == {"a", "b"}
        assert sorted(heard) == [("a", MISSED), ("a", MISSED), ("b", MISSED), ("b", MISSED)]

    run(play, HEAD_CHECK_SECONDS=100.0)


def test_memberships_are_refreshed_after_their_time():
    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        topics = [f"t{number}" for number in range(300)]
        bus.join(topics)
        await bus.settled()
        layer.groups.clear()  # it has forgotten us without an error
        sizes = [len(layer.calls)]
        for _ in range(30):
            await asyncio.sleep(1)
            sizes.append(len(layer.calls))
        await asyncio.sleep(0.5)
        assert set(layer.groups) == set(topics)
        assert Counter(layer.calls) == {("group_add", topic): 2 for topic in topics}
        # What went by meanwhile is found by the head check: a renewal alone is no reason for one.
        assert Counter(heard) == {(topic, MISSED): 1 for topic in topics}
        assert max(after - before for before, after in pairwise(sizes)) < 50  # not all at once

    run(play, HEAD_CHECK_SECONDS=1.0, GROUP_REFRESH_SECONDS=30.0)


def test_a_renewal_that_has_failed_is_a_new_membership_when_it_succeeds():
    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        bus.join(["a"])
        await bus.settled()
        with patch.object(layer, "group_add", side_effect=ConnectionError):
            await asyncio.sleep(3.5)
        assert heard == [("a", MISSED)]
        await asyncio.sleep(2)
        assert heard == [("a", MISSED)] * 2

    run(play, HEAD_CHECK_SECONDS=1.0, GROUP_REFRESH_SECONDS=3.0)


def test_a_topic_that_is_left_while_its_renewal_fails_is_left():
    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        async def fail(group: str, channel: str) -> None:
            bus.leave(["a"])
            raise ConnectionError

        bus.join(["a"])
        await bus.settled()
        with patch.object(layer, "group_add", fail):
            await asyncio.sleep(3.5)
        await asyncio.sleep(5)
        assert "a" not in layer.groups

    run(play, HEAD_CHECK_SECONDS=1.0, GROUP_REFRESH_SECONDS=3.0)


def test_to_join_what_is_joined_renews_it_and_reports_nothing():
    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        for _ in range(2):
            bus.join(["a"])
            await bus.settled()
        assert layer.calls == [("group_add", "a")] * 2
        assert heard == [("a", MISSED)]
        bus.leave(["a"])
        bus.join(["a"])  # as if it were new, though it is never left
        await bus.settled()
        assert ("group_discard", "a") not in layer.calls
        assert heard == [("a", MISSED)] * 2

    run(play)


@pytest.mark.parametrize("seed", range(20))
def test_the_last_word_on_a_topic_counts(seed):
    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        chance = Noise(seed, delay=0.8, longest=0.3)
        for _ in range(6):
            bus.join(["a"])
            await chance.wait()
            bus.leave(["a"])
            await chance.wait()
        assert chance.happens(0.5) or not bus.join(["a"])
        await asyncio.sleep(5)
        assert ("a" in layer.groups) == ("a" in bus._joined)
        if "a" in layer.groups:
            heard.clear()
            await layer.group_send("a", from_elsewhere(LOGGED))
            await asyncio.sleep(1)
            assert heard == [("room.a", [LOGGED])]

    run(play, FakeLayer(Noise(seed, delay=0.7, longest=0.4)), HEAD_CHECK_SECONDS=100.0)


def test_a_topic_that_is_joined_while_it_is_left_is_not_reported_too_early():
    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        bus.join(["a"])
        await asyncio.sleep(1)
        heard.clear()
        bus.leave(["a"])
        await asyncio.sleep(0.01)  # the layer is at it
        bus.join(["a"])
        while not heard:
            await asyncio.sleep(0.01)
        assert "a" in layer.groups

    run(play, FakeLayer(Noise(1, delay=1.0, longest=0.4)))


def test_a_layer_that_brings_nothing_is_down_until_it_does_again(caplog):
    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        bus.join(["a"])
        await asyncio.sleep(5)
        assert not bus.is_down
        heard.clear()
        layer.deaf = True  # every call succeeds
        for _ in range(10):
            await asyncio.sleep(4)
            assert await bus.send("a", [LOGGED])
            bus.join(["a"])
            await bus.settled()
            assert bus.is_down
        layer.deaf = False
        await asyncio.sleep(4)
        assert not bus.is_down
        assert heard == [("a", MISSED)]  # joined anew, and what has gone by is looked for

    run(play, HEAD_CHECK_SECONDS=1.0, ANNOUNCE_TIMEOUT_SECONDS=2.0)
    said = [record.getMessage() for record in caplog.records if record.name == "realtime.hub"]
    assert len(said) == 2
    assert said[0].startswith("The channel layer does not bring what is sent (TimeoutError")
    assert said[1] == "The channel layer works again."


# -- stopping


def test_to_leave_groups_at_the_end_is_no_sign_that_the_layer_works_again(caplog):
    """That of Redis' pub/sub forgets a group that it could not join, without asking Redis."""

    class Forgetful(FakeLayer):
        async def group_discard(self, group: str, channel: str) -> None:
            pass

    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        layer.down = True
        bus.join(["a"])
        await bus.settled()
        await bus.stop()
        assert bus.is_down

    run(play, Forgetful())
    [said] = [record.getMessage() for record in caplog.records if record.name == "realtime.hub"]
    assert said.startswith("The channel layer takes no group changes")


def test_to_stop_leaves_all_groups_however_long_a_slow_layer_takes():
    layer = FakeLayer(Noise(1, delay=1.0, longest=0.5))

    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        bus.join(f"topic.{number}" for number in range(500))
        await bus.settled()
        assert len(layer.groups) == 500

    run(play, layer, ANNOUNCE_TIMEOUT_SECONDS=1.0)
    assert layer.groups == {}


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_to_stop_again_leaves_the_groups_that_a_cancellation_has_kept(count):
    """As at the end of a loop, which first cancels all its tasks, and waits for them."""
    layer = FakeLayer(Noise(1, delay=1.0, longest=0.5))

    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        bus.join(f"topic.{number}" for number in range(120))
        await bus.settled()
        stopping = asyncio.create_task(bus.stop())
        await turns(count)
        ending = asyncio.all_tasks() - {asyncio.current_task()}
        for task in ending:
            task.cancel()
        await asyncio.wait(ending)
        assert stopping in ending
        assert len(layer.groups) == 120

    run(play, layer)
    assert layer.groups == {}


@pytest.mark.parametrize("channel", [True, False], ids=["later", "from the start"])
def test_to_stop_waits_for_no_layer_that_hangs(channel):
    class Silent(FakeLayer):
        async def new_channel(self, prefix: str = "specific") -> str:
            await asyncio.Event().wait()
            raise AssertionError

    async def play(bus: ChannelsBus, layer: FakeLayer, heard: list[Any]) -> None:
        bus.join(f"topic.{number}" for number in range(500))
        if channel:
            await bus.settled()
        layer.hanging = True
        began = asyncio.get_running_loop().time()
        await bus.stop()
        assert asyncio.get_running_loop().time() - began <= 2.1

    layer = FakeLayer() if channel else Silent()
    run(play, layer, ANNOUNCE_TIMEOUT_SECONDS=2.0)
