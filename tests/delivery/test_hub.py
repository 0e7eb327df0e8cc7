"""The hub against a channel layer that loses, hangs and dies, and with very many readers."""

import asyncio
import contextlib
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import redis
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

from realtime.delivery import hub as hub_module
from realtime.delivery.announce import announce
from realtime.delivery.bus.base import MISSED, PEERS_TOPIC
from realtime.delivery.hub import Hub, get_hub, heads_checked, positions_now, running_hubs
from realtime.events.event import Event
from realtime.events.position import START, Position
from realtime.processes.registry import this_process
from realtime.processes.status import get_status

from ..support.clients import eventually
from ..support.clock import InstantLoop
from ..support.fakes import FakeLayer, FakeRegistry, FaultyLog, LogFailed, Noise
from ..support.hubs import Reader, from_elsewhere, instantly, stage, turns


async def publish(layer: Any, log: FaultyLog, topic: str = "a", announced: bool = True) -> Event:
    """Another process publishes."""
    event = log.put(topic, "message", "1")
    if announced:
        await layer.group_send(topic, from_elsewhere(event))
    return event


@pytest.fixture
def quiet(caplog):
    caplog.set_level("CRITICAL", "realtime")


# -- gaps


def test_an_announcement_is_delivered_without_reading_the_log():
    with stage() as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            log.put("a", "message", "0")
            feed = await hub.attach("a", reader)
            await turns()
            reads = log.reads
            await publish(layer, log)
            await turns()
            assert reader.offsets == [2]
            assert log.reads == reads
            hub.detach(feed, reader)

        instantly(main())


def test_readers_that_are_behind_are_counted():
    class SlowReader(Reader):
        position = START

    with stage() as (layer, log):

        async def main() -> None:
            reader, hub = SlowReader(), get_hub()
            feeds = [await hub.attach(topic, reader) for topic in ("a", "b")]
            assert hub_module._slow_readers() == 0
            await publish(layer, log)  # on "a"
            await turns()
            assert hub_module._slow_readers() == 1
            for feed in feeds:
                hub.detach(feed, reader)
            assert hub_module._slow_readers() == 0

        instantly(main())


def test_readers_are_counted_while_they_read():
    def count() -> int:
        return hub_module.SUBSCRIPTIONS.value()

    with stage():

        async def main() -> None:
            hub, before = get_hub(), count()
            readers = [Reader(), Reader()]
            feeds = [await hub.attach("a", reader) for reader in readers]
            assert count() == before + 2
            for feed, reader in zip(feeds, readers, strict=True):
                hub.detach(feed, reader)
            assert count() == before

        instantly(main())


def test_each_check_notes_how_late_the_loop_is_and_why_its_bus_fails(quiet):
    with stage(HEAD_CHECK_SECONDS=1.0) as (layer, _):

        async def main() -> None:
            reader, hub, status = Reader(), get_hub(), get_status()
            layer.down = True
            feed = await hub.attach("a", reader)
            status.loop_lag = -1.0
            await asyncio.sleep(3)
            assert status.loop_lag >= 0.0
            assert status.bus_failure == "ConnectionError"
            layer.recover()
            await asyncio.sleep(60)
            assert status.bus_failure == ""
            hub.detach(feed, reader)

        instantly(main())


def test_a_gap_is_filled_from_the_log_in_order():
    with stage() as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            feed = await hub.attach("a", reader)
            for announced in (True, False, False, True):
                await publish(layer, log, announced=announced)
            await turns()
            assert reader.offsets == [1, 2, 3, 4]
            hub.detach(feed, reader)

        instantly(main())


def test_repeated_and_late_announcements_are_dropped():
    with stage() as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            feed = await hub.attach("a", reader)
            events = [await publish(layer, log) for _ in range(3)]
            await turns()
            for event in [*reversed(events), *events]:
                await layer.group_send("a", from_elsewhere(event))
            await turns()
            assert reader.offsets == [1, 2, 3]
            hub.detach(feed, reader)

        instantly(main())


def test_what_was_missed_while_the_head_was_read_is_read_at_once():
    class SlowLog(FaultyLog):
        async def heads(self, topics: Sequence[str]) -> Mapping[str, Position]:
            heads = await super().heads(topics)
            asked.set()
            await answering.wait()
            return heads

    with stage(log=SlowLog()) as (_, log):

        async def main() -> None:
            nonlocal asked, answering
            asked, answering = asyncio.Event(), asyncio.Event()
            reader, hub = Reader(), get_hub()
            attaching = asyncio.create_task(hub.attach("a", reader))
            await asked.wait()
            log.put("a", "message", "1")
            hub._on_message("a", MISSED)  # the bus has joined the topic again
            answering.set()
            feed = await attaching
            await turns()
            assert reader.offsets == [1]
            hub.detach(feed, reader)

        asked = answering = asyncio.Event()
        instantly(main())


def test_a_topic_whose_bus_has_said_what_it_must_costs_no_read_at_its_start():
    with stage() as (_, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            log.put("a", "message", "0")
            attaching = asyncio.create_task(hub.attach("a", reader))
            while "a" not in hub.feeds:
                await asyncio.sleep(0)
            hub._on_message("a", MISSED)
            feed = await attaching
            await turns()
            assert log.reads == 0
            hub.detach(feed, reader)

        instantly(main())


def test_a_lost_last_announcement_is_found_by_the_check_of_the_heads():
    with stage(HEAD_CHECK_SECONDS=2.0) as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            feed = await hub.attach("a", reader)
            await asyncio.sleep(4.5)  # it is not new any more
            await publish(layer, log, announced=False)
            await asyncio.sleep(1)
            assert reader.offsets == []
            await asyncio.sleep(1)
            assert reader.offsets == [1]
            hub.detach(feed, reader)

        instantly(main())


def test_a_late_announcement_of_a_deleted_topic_is_not_its_first_event():
    with stage() as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            old = log.put("a", "message", "old")
            log.delete("a")
            feed = await hub.attach("a", reader)
            await layer.group_send("a", from_elsewhere(old))
            await turns()
            assert reader.got == []
            assert feed.position == START
            hub.detach(feed, reader)

        instantly(main())


def test_a_topic_that_is_reborn_wakes_its_readers_at_its_new_position():
    with stage() as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            await publish(layer, log)
            feed = await hub.attach("a", reader)
            reader.wakes = 0
            log.delete("a")
            new = await publish(layer, log)
            await turns()
            assert reader.got == []
            assert reader.wakes == 1
            assert feed.position == new.position
            assert feed.after(new.position, 10) == []
            assert feed.after(Position("epoch001", 1), 10) is None
            hub.detach(feed, reader)

        instantly(main())


def test_announcements_during_the_start_are_not_lost():
    # The head is looked at, then an event is published and announced, then the look returns.
    log = FaultyLog(Noise(1, delay=1.0, longest=1.0))
    with stage(log=log, HEAD_CHECK_SECONDS=100.0) as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            attaching = asyncio.create_task(hub.attach("a", reader))
            for _ in range(20):
                await asyncio.sleep(0.1)
                await publish(layer, log)
            feed = await attaching
            await asyncio.sleep(10)
            assert feed.position == Position("epoch001", 20)
            first = reader.offsets[0]
            assert reader.offsets == list(range(first, 21))
            hub.detach(feed, reader)

        instantly(main())


def test_a_log_that_fails_is_asked_again(quiet):
    with stage(HEAD_CHECK_SECONDS=1.0) as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            feed = await hub.attach("a", reader)
            log.failing = True
            await publish(layer, log, announced=False)
            await publish(layer, log)
            await asyncio.sleep(5)
            assert reader.offsets == []
            log.failing = False
            await asyncio.sleep(2)
            assert reader.offsets == [1, 2]
            hub.detach(feed, reader)

        instantly(main())


def test_readers_of_a_feed_that_can_not_start_get_the_error_and_leave_nothing(quiet):
    with stage() as (_, log):

        async def main() -> None:
            hub = get_hub()
            log.failing = True
            attaching = [asyncio.create_task(hub.attach("a", Reader())) for _ in range(3)]
            results = await asyncio.gather(*attaching, return_exceptions=True)
            assert [type(result) for result in results] == [LogFailed] * 3
            assert hub.feeds == {}
            assert running_hubs() == []

        instantly(main())


# -- a layer that fails


def test_a_layer_that_fails_and_forgets_is_joined_again(quiet):
    with stage(HEAD_CHECK_SECONDS=100.0) as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            feed = await hub.attach("a", reader)
            layer.fail()
            await publish(layer, log, announced=False)
            await asyncio.sleep(3)
            layer.recover()
            await asyncio.sleep(2)
            # Found on rejoining, without a look at the heads.
            assert reader.offsets == [1]
            await publish(layer, log)
            await turns()
            assert reader.offsets == [1, 2]
            hub.detach(feed, reader)

        instantly(main())


def test_a_layer_that_hangs_holds_up_neither_readers_nor_publishers(quiet):
    with stage(ANNOUNCE_TIMEOUT_SECONDS=2.0, HEAD_CHECK_SECONDS=1.0) as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            layer.hanging = True
            loop = asyncio.get_running_loop()
            begun = loop.time()
            feed = await hub.attach("a", reader)
            assert loop.time() - begun <= 2.1
            for _ in range(3):
                announce([log.put("a", "message", "1")])
            await publish(layer, log, announced=False)
            await asyncio.sleep(1.5)
            assert reader.offsets == [1, 2, 3, 4]
            layer.hanging = False
            await asyncio.sleep(5)
            assert layer.topics == {"a": {hub.bus._channel}}
            hub.detach(feed, reader)

        instantly(main())


def test_what_is_announced_together_is_delivered_together():
    with stage() as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            log.put("a", "message", "0")
            feed = await hub.attach("a", reader)
            sent: list[list[Event]] = []
            send = feed.fanout.send
            feed.fanout.send = lambda events: (sent.append(events), send(events))
            events = [log.put("a", "message", str(number)) for number in range(1, 4)]
            typing = Event("a", "typing", "1")
            message = from_elsewhere(events[0], typing, *events[1:])
            await layer.group_send("a", message)
            await layer.group_send("a", message)
            await turns()
            assert sent == [[events[0], typing, *events[1:]], [typing]]
            log.put("a", "message", "4")
            gap = log.put("a", "message", "5")
            await layer.group_send("a", from_elsewhere(gap))
            await turns()
            assert reader.offsets == [2, 0, 3, 4, 0, 5, 6]
            hub.detach(feed, reader)

        instantly(main())


# -- the other processes


def test_a_new_hub_finds_at_once_what_was_not_announced_to_it():
    """As others may not have heard that it has joined; after two beats they know by its row."""
    with stage(HEAD_CHECK_SECONDS=100.0) as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            feed = await hub.attach("a", reader)
            for offset in range(1, 16):
                await publish(layer, log, announced=False)
                await asyncio.sleep(0.26)
                assert reader.offsets[-1] == offset
            reads = log.reads
            await asyncio.sleep(50)
            assert log.reads == reads
            hub.detach(feed, reader)

        instantly(main())


def test_a_hub_has_its_row_before_it_joins_and_says_so_afterwards():
    registry = FakeRegistry()
    registry.seconds = 0.1
    with stage(HEAD_CHECK_SECONDS=100.0, registry=registry) as (layer, _):
        calls: list[tuple[str, str, bool]] = []
        respond = layer._respond

        async def note(call: str, group: str) -> None:
            calls.append((call, group, asyncio.get_running_loop().time() >= registry.seconds))
            await respond(call, group)

        layer._respond = note

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            feed = await hub.attach("a", reader)
            await asyncio.sleep(50)
            assert sorted(calls[:2]) == [("group_add", group, True) for group in ("a", PEERS_TOPIC)]
            sent = [call for call in calls if call[0] == "group_send"]
            assert sent == [("group_send", PEERS_TOPIC, True)]
            hub.detach(feed, reader)
            await asyncio.sleep(1)
            assert registry.rows == {}

        instantly(main())


@pytest.mark.parametrize("seconds", [0.0, 60.0], ids=["is away", "does not answer"])
def test_a_register_that_is_no_use_keeps_no_reader_waiting(seconds, quiet):
    registry = FakeRegistry()
    registry.failing, registry.seconds = not seconds, seconds
    with stage(HEAD_CHECK_SECONDS=100.0, registry=registry) as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            loop = asyncio.get_running_loop()
            begun = loop.time()
            feed = await hub.attach("a", reader)
            assert loop.time() - begun < 0.5
            await publish(layer, log)
            await asyncio.sleep(0.1)
            assert reader.offsets == [1]
            hub.detach(feed, reader)
            await asyncio.sleep(100)

        instantly(main())


def test_a_hub_that_stops_leaves_the_row_to_the_next_one():
    registry = FakeRegistry()
    with stage(registry=registry):

        async def main() -> None:
            reader = Reader()
            for _ in range(3):
                hub = get_hub()
                feed = await hub.attach("a", reader)
                hub.detach(feed, reader)
            hub = get_hub()
            feed = await hub.attach("a", reader)
            await asyncio.sleep(1)
            assert this_process() in registry.rows
            hub.detach(feed, reader)

        instantly(main())


def test_a_hub_on_a_bus_of_this_process_alone_has_no_row():
    registry = FakeRegistry()
    with stage(registry=registry, CHANNEL_LAYER="none"):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            feed = await hub.attach("a", reader)
            await asyncio.sleep(10)
            assert registry.beats == 0
            hub.detach(feed, reader)

        instantly(main())


def test_a_hub_beats_while_it_waits_for_the_log(monkeypatch):
    registry = FakeRegistry()
    with stage(HEAD_CHECK_SECONDS=1.0, registry=registry) as (_, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            feed = await hub.attach("a", reader)

            async def heads(topics: Any) -> Any:
                await asyncio.sleep(30)
                return {}

            with monkeypatch.context() as patch:
                patch.setattr(log, "heads", heads)
                beats = registry.beats
                await asyncio.sleep(10.5)
                assert registry.beats - beats >= 5
            hub.detach(feed, reader)
            await asyncio.sleep(40)

        instantly(main())


def test_a_process_that_was_forked_off_has_no_hub():
    """It would hand what it publishes to the copy of a loop that runs no more."""
    with stage():

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            feed = await hub.attach("a", reader)
            pid = os.fork()
            if not pid:
                os._exit(len(running_hubs()))
            assert os.waitpid(pid, 0)[1] == 0
            hub.detach(feed, reader)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork among threads
            instantly(main())


# -- checking the heads


def test_the_signal_names_the_topics_with_readers_and_one_error_ends_nothing(caplog):
    calls: list[list[str]] = []

    async def fail(topics: list[str], **kwargs: Any) -> None:
        raise ZeroDivisionError

    async def note(topics: list[str], **kwargs: Any) -> None:
        calls.append(topics)

    for receiver in (fail, note):
        heads_checked.connect(receiver)
    try:
        with stage(HEAD_CHECK_SECONDS=1.0):

            async def main() -> None:
                hub, reader = get_hub(), Reader()
                feeds = [await hub.attach(topic, reader) for topic in "ab"]
                await asyncio.sleep(2.5)
                for feed in feeds:
                    hub.detach(feed, reader)

            instantly(main())
    finally:
        for receiver in (fail, note):
            heads_checked.disconnect(receiver)
    assert calls == [["a", "b"]] * 2  # those of a new hub in between are none of the regular ones
    assert "ZeroDivisionError" in caplog.text


def test_a_receiver_that_takes_long_delays_no_check_and_ends_with_the_hub():
    calls: list[str] = []

    async def take_long(**kwargs: Any) -> None:
        calls.append("begun")
        try:
            await asyncio.sleep(1_000)
        finally:
            calls.append("ended")

    heads_checked.connect(take_long)
    try:
        with stage(HEAD_CHECK_SECONDS=1.0, GROUP_REFRESH_SECONDS=1_000.0) as (_, log):

            async def main() -> None:
                hub, reader = get_hub(), Reader()
                feed = await hub.attach("a", reader)
                await asyncio.sleep(11.5)  # it is not new any more
                log.put("a", "message", "1")  # which nobody announces
                await asyncio.sleep(2)
                assert reader.offsets == [1]
                assert calls == ["begun"]
                hub.detach(feed, reader)

            instantly(main())
    finally:
        heads_checked.disconnect(take_long)
    assert calls == ["begun", "ended"]


def test_a_topic_whose_announcement_was_missed_is_joined_anew():
    with stage(HEAD_CHECK_SECONDS=1.0, GROUP_REFRESH_SECONDS=1_000.0) as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            feed = await hub.attach("a", reader)
            layer.groups.clear()  # without an error, as a Redis that was flushed
            await publish(layer, log)
            await asyncio.sleep(2)
            assert reader.offsets == [1]
            await publish(layer, log)
            await turns()
            assert reader.offsets == [1, 2]
            hub.detach(feed, reader)

        instantly(main())


# -- coming and going


def test_the_last_reader_to_leave_takes_everything_along():
    with stage() as (layer, _):

        async def main() -> None:
            hub, readers = get_hub(), [Reader() for _ in range(3)]
            feeds = [await hub.attach(topic, reader) for topic in "ab" for reader in readers]
            assert running_hubs() == [hub]
            assert set(layer.topics) == {"a", "b"}
            for feed in feeds:
                for reader in readers:
                    hub.detach(feed, reader)
            assert running_hubs() == []
            assert get_hub() is not hub
            await asyncio.sleep(1)
            assert layer.groups == {}
            assert asyncio.all_tasks() == {asyncio.current_task()}

        instantly(main())


@pytest.mark.parametrize("seconds", [0.0, 0.5], ids=["", "slow"])
@pytest.mark.parametrize("count", range(12))
def test_a_loop_that_ends_closes_what_it_has_cancelled(count, seconds):
    """`asyncio.Runner` ends as the server does: all tasks are cancelled, then generators closed."""
    registry = FakeRegistry()
    layer = FakeLayer(Noise(1, delay=1.0, longest=seconds))
    with stage(layer, registry=registry):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            feeds = [await hub.attach(topic, reader) for topic in "abc"]
            await asyncio.sleep(1)
            assert registry.rows
            assert len(layer.topics) == 3
            for feed in feeds:
                hub.detach(feed, reader)
            await turns(count)

        with asyncio.Runner(loop_factory=InstantLoop) as runner:
            runner.run(main())
        assert registry.rows == {}
        assert layer.groups == {}


def test_a_loop_that_ends_closes_a_hub_whose_readers_have_not_left():
    registry = FakeRegistry()
    with stage(registry=registry) as (layer, _):

        async def main() -> None:
            await get_hub().attach("a", Reader())

        with asyncio.Runner(loop_factory=InstantLoop) as runner:
            runner.run(main())
        assert registry.rows == {}
        assert layer.groups == {}


def test_a_loop_that_ends_waits_for_what_closes_already():
    """A reader that is cancelled stops the hub, when that is done."""
    leaves: list[bool] = []

    class CountingRegistry(FakeRegistry):
        async def leave(self) -> None:
            leaves.append(True)
            await super().leave()

    layer = FakeLayer(Noise(1, delay=1.0, longest=0.5))
    with stage(layer, registry=CountingRegistry()) as (layer, _):

        async def read() -> None:
            reader, hub = Reader(), get_hub()
            feed = await hub.attach("a", reader)
            try:
                await asyncio.Event().wait()
            finally:
                hub.detach(feed, reader)

        async def main() -> None:
            reading = asyncio.create_task(read())
            await asyncio.sleep(5)
            assert not reading.done()

        with asyncio.Runner(loop_factory=InstantLoop) as runner:
            runner.run(main())
        assert layer.groups == {}
        assert leaves == [True]


def test_the_end_of_a_loop_waits_for_no_database_that_hangs():
    class HangingRegistry(FakeRegistry):
        async def leave(self) -> None:
            await asyncio.Event().wait()

    with stage(registry=HangingRegistry()):

        async def main() -> None:
            await get_hub().attach("a", Reader())

        with asyncio.Runner(loop_factory=InstantLoop) as runner:
            runner.run(main())


def test_a_hub_that_closes_leaves_its_groups_however_long_a_slow_layer_takes():
    layer = FakeLayer(Noise(1, delay=1.0, longest=0.5))
    with stage(layer, ANNOUNCE_TIMEOUT_SECONDS=1.0) as (layer, _):

        async def main() -> None:
            hub, reader = get_hub(), Reader()
            names = [f"topic.{number}" for number in range(500)]
            feeds = await asyncio.gather(*(hub.attach(name, reader) for name in names))
            for feed in feeds:
                hub.detach(feed, reader)
            await asyncio.sleep(30)
            assert layer.groups == {}

        instantly(main())


def test_a_reader_that_has_started_gets_what_is_only_announced():
    """An ephemeral event, which no log brings: the layer takes its time to join."""
    layer = FakeLayer(Noise(1, delay=1.0, longest=0.4))
    with stage(layer):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            feed = await hub.attach("a", reader)
            assert "a" in layer.groups
            hub.detach(feed, reader)

        instantly(main())


def test_attach_detach_attach_ends_as_a_member():
    # The layer takes its time: what was asked first must not be what counts last.
    for seed in range(30):
        layer = FakeLayer(Noise(seed, delay=0.7, longest=0.4))
        with stage(layer, HEAD_CHECK_SECONDS=100.0) as (layer, log):

            async def main(seed: int = seed, layer: Any = layer, log: Any = log) -> None:
                chance = Noise(seed, delay=0.8, longest=0.3)
                keeper, hub = Reader(), get_hub()
                kept = await hub.attach("keeper", keeper)
                for _ in range(6):
                    reader = Reader()
                    feed = await hub.attach("a", reader)
                    await chance.wait()
                    hub.detach(feed, reader)
                    await chance.wait()
                reader = Reader()
                feed = await hub.attach("a", reader)
                await asyncio.sleep(5)
                assert "a" in layer.groups
                await publish(layer, log)
                await asyncio.sleep(1)
                assert reader.offsets == [1]
                hub.detach(feed, reader)
                await asyncio.sleep(5)
                assert set(layer.topics) == {"keeper"}
                hub.detach(kept, keeper)

            instantly(main())


def test_a_reader_cancelled_before_the_start_does_not_cancel_the_others():
    log = FaultyLog(Noise(1, delay=1.0, longest=1.0))
    with stage(log=log):

        async def main() -> None:
            hub = get_hub()
            first, second = Reader(), Reader()
            leaving = asyncio.create_task(hub.attach("a", first))
            staying = asyncio.create_task(hub.attach("a", second))
            await asyncio.sleep(0)
            leaving.cancel()
            feed = await staying
            assert len(feed.fanout) == 1
            hub.detach(feed, second)

        instantly(main())


async def test_five_thousand_topics_at_once():
    # Debug mode keeps a stack for each of thousands of tasks, which takes half a minute.
    asyncio.get_running_loop().set_debug(False)
    with stage() as (layer, log):
        hub, reader = get_hub(), Reader()
        names = [f"topic.{number}" for number in range(5_000)]
        feeds = await asyncio.gather(*(hub.attach(name, reader) for name in names))
        assert len(hub.feeds) == 5_000
        await eventually(lambda: len(layer.topics) == 5_000)
        for name in names[::1000]:
            await publish(layer, log, name)
        await eventually(lambda: len(reader.got) == 5)
        for feed in feeds:
            hub.detach(feed, reader)
        await eventually(lambda: layer.groups == {})
        await hub._closing


async def test_positions_now_come_from_memory_where_a_topic_is_served():
    with stage() as (layer, log):
        hub, reader = get_hub(), Reader()
        here = await publish(layer, log, "here")
        there = await publish(layer, log, "there")
        feed = await hub.attach("here", reader)
        assert await positions_now(["here", "there", "nowhere"]) == {
            "here": here.position,
            "there": there.position,
            "nowhere": START,
        }
        hub.detach(feed, reader)
        await hub._closing


# -- real Redis layers


REDIS_LAYERS = {"core": RedisChannelLayer, "pubsub": RedisPubSubChannelLayer}


@pytest.fixture(autouse=True)
def _redis_knows_its_version(monkeypatch):
    # redis-py looks it up on the disk for each connection, which blocks the loop: not our doing.
    monkeypatch.setattr("redis.utils.get_lib_version", lambda: "0")


@pytest.fixture(params=REDIS_LAYERS)
def redis_layer(request, valkey):
    return REDIS_LAYERS[request.param](hosts=[{"address": valkey.url, "socket_timeout": 15.0}])


async def close_layer(layer: Any) -> None:
    close = getattr(layer, "close_pools", None) or layer.flush
    await close()


async def test_a_valkey_that_is_killed_and_restarted_costs_nothing(redis_layer, valkey, quiet):
    loop = asyncio.get_running_loop()
    with stage(redis_layer, HEAD_CHECK_SECONDS=0.5) as (layer, log):
        hub, reader = get_hub(), Reader()
        feed = await hub.attach("a", reader)
        published = 0

        async def publish_some(count: int) -> None:
            nonlocal published
            for _ in range(count):
                published += 1
                event = log.put("a", "message", "1")
                try:
                    async with asyncio.timeout(1):
                        await layer.group_send("a", from_elsewhere(event))
                except Exception:
                    pass

        await publish_some(5)
        await eventually(lambda: len(reader.got) == 5)
        await asyncio.to_thread(valkey.kill)
        await publish_some(5)
        # The log serves while the layer is down.
        await eventually(lambda: len(reader.got) == 10)
        await asyncio.to_thread(valkey.start)
        await publish_some(5)
        restarted = loop.time()
        await eventually(lambda: len(reader.got) == 15)
        # And soon the layer serves again: an ephemeral event has no other way.
        while not any(event.type == "alive" for event in reader.got):
            assert loop.time() - restarted < 20, "The layer did not come back."
            ephemeral = Event("a", "alive", "1")
            # A connection in the layer's pool may be one from before the restart.
            with contextlib.suppress(redis.RedisError, TimeoutError):
                async with asyncio.timeout(2):
                    await layer.group_send("a", from_elsewhere(ephemeral))
            await asyncio.sleep(0.1)
        await publish_some(5)
        await eventually(lambda: len([o for o in reader.offsets if o]) == published)
        assert [o for o in reader.offsets if o] == list(range(1, published + 1))
        hub.detach(feed, reader)
        await hub._closing
        await close_layer(layer)


async def test_an_overflow_of_the_layer_s_capacity_is_made_up_for(valkey):
    layer = RedisChannelLayer(hosts=[valkey.url], capacity=5)
    with stage(layer, HEAD_CHECK_SECONDS=0.3) as (layer, log):
        hub, reader = get_hub(), Reader()
        feed = await hub.attach("a", reader)
        for _ in range(60):
            await publish(layer, log)
        await eventually(lambda: len(reader.got) == 60)
        assert reader.offsets == list(range(1, 61))
        hub.detach(feed, reader)
        await hub._closing
        await close_layer(layer)


async def test_groups_are_left_on_redis(redis_layer, valkey):
    with stage(redis_layer) as (layer, _):
        hub, reader = get_hub(), Reader()
        feeds = [await hub.attach(f"topic.{number}", reader) for number in range(60)]
        for feed in feeds:
            hub.detach(feed, reader)
        await hub._closing
        if not isinstance(layer, RedisPubSubChannelLayer):  # the other's own may take a moment
            await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        if isinstance(layer, RedisChannelLayer):
            connection = layer.connection(0)
            assert await connection.keys("asgi:group:*") == []
        else:
            assert layer._shards[0]._subscribed_to == set()
        await close_layer(layer)


def test_a_hub_ends_though_a_cancellation_is_lost():
    class DeafLayer(FakeLayer):
        """As Redis' client on Python 3.11: what comes while a command is written is swallowed."""

        async def receive(self, channel: str) -> Any:
            try:
                return await super().receive(channel)
            except asyncio.CancelledError:
                return await super().receive(channel)

    with stage(DeafLayer()):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            hub.detach(await hub.attach("a", reader), reader)
            await asyncio.sleep(100)

        instantly(main())


async def test_hubs_are_one_per_loop():
    with stage():
        hub, reader = get_hub(), Reader()
        assert isinstance(hub, Hub)
        feed = await hub.attach("a", reader)
        assert get_hub() is hub
        assert hub_module._hubs[asyncio.get_running_loop()] is hub
        hub.detach(feed, reader)
        await hub._closing
