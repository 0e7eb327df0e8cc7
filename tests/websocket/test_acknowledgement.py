"""The answer to a publication goes out with the event, and exactly once."""

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser

from realtime import Subscription, publish_now
from realtime.delivery.publish import publish_with
from realtime.delivery.published import PUBLISHED
from realtime.delivery.synced import Sink
from realtime.events.event import Event
from realtime.limits.client import NOBODY
from realtime.server.fastlane import SocketLane
from realtime.testing import memory_log
from realtime.websocket import topic_consumers
from realtime.websocket.acknowledgement import Acknowledgement
from realtime.websocket.messages import encode_event
from realtime.websocket.socket import ConsumerState, Socket

from ..support.lanes import identity


class Connection:
    """What a lane needs of its transport, and each call that sends something."""

    pending = False

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.calls: list[bytes] = []
        self.lane = SocketLane(self)
        self.lane.open(identity)

    def send(self, data: bytes) -> int:
        self.calls.append(data)
        return self.ours.send(data)

    def keep(self, data: bytes, sent: int) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError


class Publisher(Socket):
    """An open socket with this lane, and what it sends in the ordinary way."""

    _state = ConsumerState.OPEN

    def __init__(self, lane: SocketLane | None) -> None:
        extensions = {} if lane is None else {"realtime.lane": {"lane": lane}}
        self.scope = {"type": "websocket", "extensions": extensions}
        self.sent: list[Any] = []

    async def base_send(self, message: Any) -> None:
        self.sent.append(json.loads(message["text"]))


@pytest.fixture
def connection() -> Iterator[Connection]:
    made = Connection()
    with made.ours, made.theirs:
        yield made


async def publish(publisher: Publisher, *, ephemeral: bool = False) -> Event:
    answer = Acknowledgement(publisher, 7)
    more = {"type": "message", "meta": None, "key": None, "publisher": ""}
    event = await publish_with(answer, "room.lobby", {"n": 1}, ephemeral=ephemeral, **more)
    await answer.send(event)
    return event


@pytest.mark.parametrize("ephemeral", [False, True])
async def test_the_event_and_its_answer_are_one_write(connection, ephemeral):
    publisher, published = Publisher(connection.lane), PUBLISHED.value("websocket")
    with memory_log():
        subscription = Subscription()
        subscription.sink = Sink(encode_event, connection.lane)
        subscription.on_ready = lambda: None
        async with subscription:
            await publish_now("room.lobby", "before")
            await subscription.add("room.lobby")
            assert [item async for item in subscription.ready()] == []
            event = await publish(publisher, ephemeral=ephemeral)
    answer = json.dumps({"type": "published", "id": event.id, "ref": 7}, separators=(",", ":"))
    assert connection.calls == [encode_event(event) + answer.encode()]
    assert publisher.sent == []
    assert PUBLISHED.value("websocket") == published + 1


async def test_a_publisher_that_does_not_read_the_topic_gets_the_answer_alone(connection):
    publisher = Publisher(connection.lane)
    with memory_log():
        event = await publish(publisher)
    [said] = map(json.loads, connection.calls)
    assert said == {"type": "published", "id": event.id, "ref": 7}
    assert publisher.sent == []


@pytest.mark.parametrize("has_lane", [True, False])
async def test_the_answer_is_sent_in_the_ordinary_way_where_the_lane_takes_nothing(
    connection, has_lane
):
    connection.lane.pause()
    publisher = Publisher(connection.lane if has_lane else None)
    with memory_log():
        event = await publish(publisher)
    assert publisher.sent == [{"type": "published", "id": event.id, "ref": 7}]
    assert connection.calls == []


async def test_the_answer_is_sent_where_the_announcement_fails(connection, monkeypatch):
    """The log goes on then: the event is stored, and its publisher has to know."""

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("realtime.delivery.announce.announce", fail)
    publisher = Publisher(connection.lane)
    event = Event("room.lobby", "message", "1", "epoch001", 1)
    answer = Acknowledgement(publisher, 7)
    with pytest.raises(ZeroDivisionError):
        answer([event])
    await answer.send(event)
    connection.lane.try_write(b"next")  # it is corked no more
    assert publisher.sent == [{"type": "published", "id": event.id, "ref": 7}]
    assert connection.calls == [b"next"]


async def test_what_is_stored_after_the_handler_has_ended_is_not_answered(connection):
    """It may have answered otherwise: that it took too long, with the same `ref`."""
    answer = Acknowledgement(Publisher(connection.lane), 7)
    answer.give_up()
    with memory_log():
        before = PUBLISHED.value("websocket")
        answer([Event("room.lobby", "message", "1", "epoch001", 1)])
    assert PUBLISHED.value("websocket") == before + 1
    assert connection.calls == []


async def test_a_handler_that_is_cancelled_gives_its_answer_up(connection, monkeypatch):
    async def store(answer: Acknowledgement, *arguments: Any, **more: Any) -> None:
        answers.append(answer)
        raise asyncio.CancelledError

    async def allow(*arguments: Any) -> None:
        pass

    answers: list[Acknowledgement] = []
    monkeypatch.setattr(topic_consumers, "publish_with", store)
    monkeypatch.setattr(topic_consumers, "require", allow)
    publisher: Any = Publisher(connection.lane)
    publisher.user = AnonymousUser()
    with pytest.raises(asyncio.CancelledError):
        await topic_consumers.publish_from(publisher, NOBODY, "room.lobby", {"data": 1})
    with memory_log():
        answers[0]([Event("room.lobby", "message", "1", "epoch001", 1)])
    assert connection.calls == []
