"""A subscription written to a socket: by a task while there is something, past it by the lane."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from realtime.access.identity import ANONYMOUS
from realtime.delivery.hub import running_hubs
from realtime.delivery.publish import publish_now
from realtime.delivery.topic_subscriber import Reset
from realtime.events.event import Event
from realtime.events.position import OLDEST, Position
from realtime.presence import member_subscription
from realtime.websocket.messages import encode_event
from realtime.websocket.topic_writer import TopicWriter

from ..support.clients import eventually
from ..support.hubs import stage
from ..support.lanes import FakeLane


class Socket:
    """Remembers what was sent."""

    has_meta = False
    identity = ANONYMOUS
    is_connecting = False

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def event(self, event: Event) -> None:
        await self.is_open.wait()
        self.sent.append(event.offset)

    async def reset(self, reset: Reset) -> None:
        self.sent.append(reset)

    async def lost_permission(self, topic: str) -> None:
        await self.is_open.wait()
        self.sent.append(f"{topic} is lost")

    async def send_error(self, code: str, detail: str) -> None:
        await self.is_open.wait()
        self.sent.append(detail)

    async def fail(self) -> None:
        self.sent.append("fail")

    async def close(self, code: int, reason: str) -> None:
        self.sent.append(code)


async def rule(user: Any, topic: str, action: str) -> bool:
    return (topic, action) == ("watched", "read")


@pytest.fixture
def world():
    with stage(HEAD_CHECK_SECONDS=0.1, PERMISSION=rule) as parts:
        yield parts


@pytest.fixture
async def socket() -> Socket:
    return Socket()


@pytest.fixture
async def writer(world, socket):
    writer = TopicWriter(socket)
    yield writer
    await writer.close()
    await eventually(lambda: not running_hubs() and len(asyncio.all_tasks()) == 1)


async def test_nothing_is_written_before_the_start_and_all_after_it(world, socket, writer):
    _, log = world
    log.put("a", "message", "1")
    await writer.subscription.add("a", OLDEST)
    await publish_now("a", 2)
    assert socket.sent == []
    writer.start(None)
    await eventually(lambda: socket.sent == [1, 2])
    writer.start(None)  # once more says nothing
    await publish_now("a", 3)
    await eventually(lambda: socket.sent == [1, 2, 3])
    assert writer._task is None


async def test_the_lane_takes_what_the_consumer_would_send(world, socket, writer):
    _, log = world
    log.put("a", "message", "1")
    lane = FakeLane()
    await writer.subscription.add("a")
    writer.start(lane)
    await eventually(lambda: writer.subscription.is_waiting)
    event = await publish_now("a", 2)
    assert lane.written == [encode_event(event)]
    lane.takes = False
    await publish_now("a", 3)
    await eventually(lambda: socket.sent == [3])


async def test_a_peer_that_does_not_read_holds_one_event_and_the_end_lets_it_go(
    world, socket, writer
):
    await writer.subscription.add("a")
    writer.start(None)
    await publish_now("a", 1)
    await eventually(lambda: socket.sent == [1] and writer._task is None)
    socket.is_open.clear()
    await publish_now("a", 2)
    await eventually(lambda: writer._task is not None)
    await writer.close()
    assert socket.sent == [1]
    assert writer._task is None


async def test_history_that_is_gone_is_said(world, socket, writer):
    _, log = world
    for number in range(3):
        log.put("a", "message", str(number))
    await writer.subscription.add("a", Position("epoch001", 1))
    log.delete("a")
    log.put("a", "message", "new")
    writer.start(None)
    await eventually(lambda: Reset("a", Position("epoch002", 1)) in socket.sent)


async def test_a_log_that_fails_closes_the_socket(world, socket, writer, caplog):
    caplog.set_level("CRITICAL", "realtime")
    _, log = world
    log.put("a", "message", "1")
    await writer.subscription.add("a", OLDEST)
    log.failing = True
    writer.start(None)
    await eventually(lambda: socket.sent == [1011])
    log.failing = False


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that knows nobody."""
    watch = SimpleNamespace(take=lambda: None)
    keeper = SimpleNamespace(watch=lambda *_: watch, unwatch=lambda _: None)
    monkeypatch.setattr(member_subscription, "get_keeper", lambda: keeper)


async def test_all_that_is_lost_is_taken_away_before_a_peer_that_does_not_read_is_told(
    world, socket, writer, keeper
):
    for topic in ("a", "b", "watched"):
        await writer.add(topic, None, None, has_presence=topic == "watched")
    socket.is_open.clear()
    telling = asyncio.ensure_future(writer.recheck())
    subscription = writer.subscription
    await eventually(lambda: (subscription.topics, subscription._watches) == (["watched"], {}))
    socket.is_open.set()
    await telling
    unseen = "You may not see who is on 'watched' any more."
    assert socket.sent == ["a is lost", "b is lost", unseen]


@pytest.mark.parametrize(
    ("topic", "has_presence", "sent"),
    [("a", False, ["fail"]), ("watched", True, ["fail"]), ("watched", False, [])],
)
async def test_socket_that_can_not_be_told_yet_of_what_is_lost_does_not_open(
    world, socket, writer, keeper, topic, has_presence, sent
):
    await writer.add(topic, None, None, has_presence)
    socket.is_connecting = True
    await writer.recheck()
    assert socket.sent == sent
