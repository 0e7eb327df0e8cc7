"""The clients and the log that apps test themselves with."""

import asyncio
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import TestCase

from realtime import testing
from realtime.access.tokens import create_token
from realtime.conf import settings
from realtime.delivery.publish import apublish, publish
from realtime.events.position import OLDEST, START

from .support.asgi import application
from .support.attempts import three_tries_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def alice() -> User:
    return User.objects.create_user("alice")


async def test_websocket_as_a_signed_in_user(alice: User) -> None:
    async with testing.websocket(application, "/ws/topics/room.a", user=alice) as socket:
        event = await apublish("room.a", {"text": "hi"})
        frame = await socket.receive_json()
        assert (frame["id"], frame["data"]) == (event.id, {"text": "hi"})
        assert await socket.receive_nothing()
        await socket.send_json({"type": "publish", "data": 1, "ref": 7})
        kinds = {(await socket.receive_json())["type"] for _ in range(2)}
        assert kinds == {"published", "event"}


async def test_websocket_refused(alice: User) -> None:
    with pytest.raises(testing.ConnectionRefused) as refused:
        async with testing.websocket(application, "/ws/topics/room.a"):
            pass
    assert refused.value.status == 401
    with pytest.raises(testing.ConnectionRefused) as refused:
        async with testing.websocket(application, "/ws/topics/secret", user=alice):
            pass
    assert refused.value.status == 403


async def test_websocket_closed_by_the_application(alice: User) -> None:
    async with testing.websocket(application, "/ws/topics/room.a", user=alice) as socket:
        for _ in range(settings.MAX_BAD_MESSAGES):
            await socket.send("{")
            assert (await socket.receive_json())["code"] == "bad_message"
        with pytest.raises(testing.ConnectionClosed) as closed:
            await socket.receive()
        assert closed.value.code == 4400


async def test_websocket_that_says_nothing(alice: User) -> None:
    async with testing.websocket(application, "/ws/topics/room.a", user=alice) as socket:
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=0.05)


@pytest.mark.parametrize("turns", range(8))
async def test_receive_that_is_cancelled_loses_no_message(turns: int) -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.send", "text": "answer"})
        await receive()

    async with testing.websocket(answer, "/") as socket:
        receiving = asyncio.create_task(socket.receive())
        await asyncio.sleep(0)
        await socket.send("question")
        for _ in range(turns):
            await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait([receiving])
        if receiving.cancelled():
            assert await socket.receive(timeout=1) == "answer"
        else:
            assert receiving.result() == "answer"


async def test_application_does_not_outlive_a_test_that_is_cancelled() -> None:
    told, ended = asyncio.Event(), asyncio.Event()

    async def linger(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        told.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def use() -> None:
        async with testing.websocket(linger, "/"):
            pass

    using = asyncio.create_task(use())
    await told.wait()
    using.cancel()
    await asyncio.wait([using])
    assert using.cancelled()
    assert ended.is_set()


async def test_event_stream_by_token(alice: User) -> None:
    token, _ = await sync_to_async(create_token)(alice)
    await apublish("room.a", "first")
    path = "/topics/room.a/events?after=0"
    async with testing.event_stream(application, path, token=token) as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        assert (await stream.receive()).json() == "first"
        published = await apublish("room.a", "second", type="greeting")
        event = await stream.receive()
        assert (event.event, event.json(), event.id) == ("greeting", "second", published.id)
    async with testing.event_stream(
        application, "/topics/room.a/events", token=token, last_event_id=published.id
    ) as stream:
        await apublish("room.a", "third")
        assert (await stream.receive()).json() == "third"


async def test_event_stream_refused() -> None:
    with pytest.raises(testing.ConnectionRefused) as refused:
        async with testing.event_stream(application, "/topics/room.a/events"):
            pass
    assert refused.value.status == 401


def test_memory_log() -> None:
    with testing.memory_log() as log:
        publish("room.a", 1)
        publish("room.a", 2, type="x")
        assert [(e.data, e.type, e.offset) for e in log.events("room.a")] == [
            ("1", "message", 1),
            ("2", "x", 2),
        ]
    with testing.memory_log() as log:
        assert log.events("room.a") == []


async def test_memory_log_serves_streams(alice: User) -> None:
    with testing.memory_log() as log:
        async with testing.websocket(
            application, "/ws/topics/room.a?after=0", user=alice
        ) as socket:
            await apublish("room.a", 1)
            assert (await socket.receive_json())["id"] == log.events("room.a")[0].id
        assert (await log.read("room.b", OLDEST, 5)).position == START


async def test_no_blocking_says_where() -> None:
    async def block() -> None:
        def dawdle(seconds: float) -> None:
            time.sleep(seconds)

        async def careless() -> None:
            await asyncio.sleep(0.02)
            dawdle(0.5)

        with pytest.raises(testing.EventLoopBlocked) as blocked, testing.no_blocking(0.1):
            await asyncio.create_task(careless())
        said = str(blocked.value)
        assert said.startswith("The event loop has been held for 0.")
        assert "time.sleep(seconds)" in said
        assert "dawdle(0.5)" in said
        assert said.count("has been held") == 1, "once for each time"

    await three_tries_of(block)


async def test_no_blocking_finds_a_calculation_and_each_time() -> None:
    async def block() -> None:
        def calculate() -> None:
            end = time.monotonic() + 0.6
            while time.monotonic() < end:
                sum(range(100))

        async def calculate_twice() -> None:
            for _ in range(2):
                calculate()
                await asyncio.sleep(0.1)

        with pytest.raises(testing.EventLoopBlocked) as blocked, testing.no_blocking(0.1):
            await calculate_twice()
        assert str(blocked.value).count("has been held") == 2
        assert "calculate" in str(blocked.value)

    await three_tries_of(block)


async def test_no_blocking_is_content_with_waiting_and_threads() -> None:
    async def wait() -> None:
        with testing.no_blocking(0.1):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(time.sleep, 0.3)

    await three_tries_of(wait)


async def test_no_blocking_does_not_hide_the_tests_own_failure() -> None:
    def fail() -> None:
        time.sleep(0.2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), testing.no_blocking(0.05):
        fail()


async def assert_refused(client: Any, path: str) -> None:
    user = await User.objects.acreate(username="alice")
    with pytest.raises(testing.ConnectionRefused, match="use a TransactionTestCase"):
        async with client(application, path, user=user):
            pass


class StreamInTestCase(TestCase):
    """What a team that does not know better writes first; Django closes its connection in it."""

    async def test_refused_stream_says_what_to_use(self) -> None:
        await assert_refused(testing.event_stream, "/topics/room.a/events")


class WebSocketInTestCase(TestCase):
    """The same with a WebSocket, and what needs no database."""

    async def test_refused_websocket_says_what_to_use(self) -> None:
        await assert_refused(testing.websocket, "/ws/topics/room.a")

    async def test_what_needs_no_database_is_not_refused(self) -> None:
        with testing.memory_log():
            async with testing.websocket(application, "/ws/topics/public.a"):
                pass
