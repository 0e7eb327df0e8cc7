"""`realtime.delivery.announce`: this process's hubs first, then the bus, whatever that does."""

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import ANY

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.test import override_settings

from realtime import models
from realtime.delivery import announce as announce_module
from realtime.delivery.announce import announce
from realtime.delivery.bus.base import PEERS_TOPIC
from realtime.delivery.bus.envelope import to_message
from realtime.delivery.hub import get_hub
from realtime.delivery.publish import publish, publish_now
from realtime.events.event import Event

from ..support.clients import eventually
from ..support.fakes import FakeLayer, FakeRegistry, FaultyLog
from ..support.hubs import Reader, instantly, joined_elsewhere, stage, turns
from ..support.layers import FailingLayer, HangingLayer, RecordingLayer, data_sent, layer
from ..support.servers import manage
from ..support.sites import shortened


@pytest.fixture
def _has_database(transactional_db: None) -> None:
    pass


# -- where this process listens


def sent_of(layer: FakeLayer) -> list[tuple[str, list[str]]]:
    """Topics and data of the announcements that reach a layer from now on."""
    sent: list[tuple[str, list[str]]] = []
    send = layer.group_send

    async def group_send(group: str, message: Any) -> None:
        if group != PEERS_TOPIC:
            sent.append((group, [event["data"] for event in message["events"]]))
        await send(group, message)

    layer.group_send = group_send  # type: ignore[method-assign]
    return sent


def test_a_process_that_is_alone_announces_only_what_is_in_no_log():
    with stage(HEAD_CHECK_SECONDS=100.0) as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            log.put("a", "message", "0")
            feed = await hub.attach("a", reader)
            await asyncio.sleep(3)  # for a second look
            sent = sent_of(layer)
            announce([log.put("a", "message", "1")])
            announce([Event("a", "message", "2")])
            announce([Event("a", "message", "3"), log.put("a", "message", "4")])
            await turns()
            assert sent == [("a", ["2", "3"])]
            assert reader.offsets == [2, 0, 0, 3]
            hub.detach(feed, reader)

        instantly(main())


def test_a_process_that_has_peers_announces_by_topic():
    registry = FakeRegistry()
    with stage(HEAD_CHECK_SECONDS=100.0, registry=registry) as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            feed = await hub.attach("a", reader)
            await asyncio.sleep(3)
            assert hub.peers.is_alone
            registry.alive.add("another")
            await layer.group_send(PEERS_TOPIC, joined_elsewhere())
            await turns()
            sent = sent_of(layer)
            announce([log.put(topic, "message", str(n)) for n, topic in enumerate("aba")])
            await turns()
            assert sent == [("a", ["0", "2"]), ("b", ["1"])]
            assert reader.offsets == [1, 2]
            hub.detach(feed, reader)

        instantly(main())


def test_a_process_that_is_not_proven_alone_announces():
    """Before its second look, and while it can't write its row."""
    registry = FakeRegistry()
    with stage(HEAD_CHECK_SECONDS=100.0, registry=registry) as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            feed = await hub.attach("a", reader)
            sent = sent_of(layer)
            announce([log.put("a", "message", "1")])
            await asyncio.sleep(3)
            announce([log.put("a", "message", "2")])
            registry.failing = True
            await asyncio.sleep(5)
            announce([log.put("a", "message", "3")])
            await turns()
            assert sent == [("a", ["1"]), ("a", ["3"])]
            assert reader.offsets == [1, 2, 3]
            hub.detach(feed, reader)

        instantly(main())


def test_a_full_outbox_does_not_concern_the_readers_of_this_process(caplog):
    with stage(ANNOUNCE_QUEUE=3, HEAD_CHECK_SECONDS=100.0) as (layer, log):

        async def main() -> None:
            reader, hub = Reader(), get_hub()
            feed = await hub.attach("a", reader)
            await turns()
            sent = sent_of(layer)
            for _ in range(50):
                announce([log.put("a", "message", "1")])
            await turns()
            assert reader.offsets == list(range(1, 51))
            assert sum(len(data) for _, data in sent) == 3
            hub.detach(feed, reader)

        instantly(main())


def test_a_process_that_listens_no_more_waits_for_no_layer_that_hangs(caplog):
    with stage(ANNOUNCE_TIMEOUT_SECONDS=2.0, HEAD_CHECK_SECONDS=100.0) as (layer, log):

        async def main() -> None:
            hub, reader = get_hub(), Reader()
            feeds = [await hub.attach(f"topic.{number}", reader) for number in range(200)]
            await turns()
            layer.hanging = True
            for number in range(100):
                announce([log.put(f"topic.{number}", "message", "1")])
            for feed in feeds:
                hub.detach(feed, reader)
            await asyncio.sleep(5)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        instantly(main())


def test_a_thread_hands_over_to_every_loop_of_the_process():
    heard: list[str] = []
    ready, done = threading.Barrier(3), threading.Event()

    async def listen(name: str) -> None:
        reader, hub = Reader(), get_hub()
        feed = await hub.attach("a", reader)
        await asyncio.to_thread(ready.wait, 10)
        await eventually(lambda: reader.got)
        heard.append(name + reader.got[0].data)
        await asyncio.to_thread(done.wait, 10)
        hub.detach(feed, reader)
        assert hub._closing is not None
        await hub._closing

    with stage(FakeLayer(), FaultyLog(), CHANNEL_LAYER="none"):
        threads = [threading.Thread(target=asyncio.run, args=(listen(n),)) for n in "xy"]
        for thread in threads:
            thread.start()
        ready.wait(10)
        announce([Event("a", "message", "1")])
        done.set()
        for thread in threads:
            thread.join(10)
    assert sorted(heard) == ["x1", "y1"]


# -- where it does not


def publish_from_a_loop(*args: Any, **kwargs: Any) -> Event:
    return async_to_sync(publish_now)(*args, **kwargs)


both_ways = pytest.mark.parametrize("way", [publish, publish_from_a_loop])


@pytest.mark.usefixtures("_has_database")
@both_ways
def test_without_a_hub_the_bus_is_told(way):
    with layer(RecordingLayer):
        event = way("a", 1)
    assert RecordingLayer.sent == [("a", {**to_message("a", [event]), "at": ANY})]


@pytest.mark.usefixtures("_has_database")
def test_without_a_hub_the_bus_is_told_after_the_commit():
    with layer(RecordingLayer):
        with transaction.atomic():
            publish("a", 1)
            transaction.set_rollback(True)
        with transaction.atomic():
            event = publish("a", 2)
            assert RecordingLayer.sent == []
    assert RecordingLayer.sent == [("a", {**to_message("a", [event]), "at": ANY})]


@pytest.mark.usefixtures("_has_database")
@both_ways
def test_without_a_layer(way):
    with layer(None):
        way("a", 1)
    assert models.Event.objects.count() == 1


@pytest.mark.usefixtures("_has_database")
@both_ways
@pytest.mark.parametrize("kind", [FailingLayer, HangingLayer])
def test_a_layer_that_is_no_use(way, kind, caplog):
    short = {"ANNOUNCE_TIMEOUT_SECONDS": 0.05}
    with layer(kind), override_settings(REALTIME=short), caplog.at_level(logging.WARNING):
        event = way("a", 1)
    assert (event.offset, models.Event.objects.count()) == (1, 1)
    [record] = [r for r in caplog.records if r.name == "realtime.publishing"]
    assert "The channel layer takes no announcements" in record.getMessage()


@contextmanager
def stuck_redis() -> Iterator[int]:
    """A port on which somebody accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


TEN = """
import json, time
from realtime.delivery.publish import publish
took = []
for number in range(10):
    started = time.monotonic()
    publish("room.a", number)
    took.append(time.monotonic() - started)
from realtime.models import Event
print(json.dumps([took, Event.objects.count()]))
"""


@pytest.mark.parametrize("kind", ["redis", "redis-pubsub"])
def test_a_command_waits_once_for_a_layer_that_hangs(site, kind):
    """Of ten events of a command or a task, the first waits for its time-out."""
    with stuck_redis() as port:
        redis = {"CHANNEL_LAYER": kind, "REDIS_URL": f"redis://127.0.0.1:{port}/0"}
        env = shortened(site, {"ANNOUNCE_TIMEOUT_SECONDS": 1.0}, **redis)
        took, count = json.loads(manage("shell", "--no-imports", "-c", TEN, env=env))
        assert count == 10
        assert took[0] > 0.95
        # All but one: the machine may stand still meanwhile.
        assert sum(seconds > 0.95 for seconds in took[1:]) <= 1
        assert manage("publish", "room.a", "11", env=env).strip().endswith("-11")


@pytest.mark.usefixtures("_has_database")
@pytest.mark.parametrize(("silent", "told"), [(60, False), (0.05, True)])
def test_a_layer_that_answers_again_is_told_again(monkeypatch, silent, told):
    short = {"ANNOUNCE_TIMEOUT_SECONDS": 0.05}
    monkeypatch.setattr(announce_module, "OPEN_SECONDS", silent)
    with override_settings(REALTIME=short):
        with layer(HangingLayer):
            publish("a", 1)
        time.sleep(0.1)
        with layer(RecordingLayer), override_settings(REALTIME={"ANNOUNCE_TIMEOUT_SECONDS": 20}):
            event = publish("a", 2)
            assert RecordingLayer.sent == (
                [("a", {**to_message("a", [event]), "at": ANY})] if told else []
            )


@pytest.mark.usefixtures("_has_database")
def test_a_thousand_in_a_row_without_a_hub():
    with layer(RecordingLayer):
        for n in range(1_000):
            publish("a", n, ephemeral=True)
    assert data_sent() == [str(n) for n in range(1_000)]


async def test_waiting_for_the_bus_may_be_cancelled_and_the_event_goes_out(monkeypatch):
    go_on = asyncio.Event()

    async def slow(self: RecordingLayer, group: str, message: dict[str, Any]) -> None:
        await go_on.wait()
        self.sent.append((group, message))

    monkeypatch.setattr(RecordingLayer, "group_send", slow)
    with layer(RecordingLayer):
        publishing = asyncio.create_task(publish_now("a", 1, ephemeral=True))
        await turns()
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        assert publishing.cancelled()
        go_on.set()
        await eventually(lambda: data_sent() == ["1"])


def test_nothing_is_nothing_to_announce():
    with layer(RecordingLayer):
        announce([])
    assert RecordingLayer.sent == []
