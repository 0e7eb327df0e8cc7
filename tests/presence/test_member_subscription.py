"""Who is here, as WebSockets, streams and requests see it, in one process."""

import asyncio
import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import AsyncClient, override_settings

from realtime import apublish, publish_now, testing
from realtime.access.connections import get_connections
from realtime.access.identity import Identity
from realtime.conf import settings as ours
from realtime.presence.keeper import get_keeper
from realtime.presence.member_subscription import MemberSubscription

from ..support.asgi import application
from ..support.clients import eventually
from .conftest import QUICK

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]

SOCKET = "/ws/topics/room.a?presence=1"
STREAM = "/topics/room.a/events?presence=1"


def seen(user: User, connections: int = 1) -> dict[str, Any]:
    return {"id": user.pk, "username": user.username, "connections": connections}


async def get(user: User | None, path: str = "/topics/room.a/presence") -> Any:
    client = AsyncClient()
    if user is not None:
        await client.aforce_login(user)
    return await client.get(path)


@pytest.mark.usefixtures("at_once")
async def test_first_who_is_here_then_who_comes_and_leaves(alice, bob):
    async with testing.websocket(application, SOCKET, user=alice) as socket:
        first = await socket.receive_json()
        assert first == {
            "type": "presence",
            "topic": "room.a",
            "users": [seen(alice)],
            "connections": 1,
        }
        async with testing.event_stream(application, STREAM, user=bob) as stream:
            change = {"topic": "room.a", "joined": [seen(bob)], "left": [], "connections": 2}
            assert await socket.receive_json() == {"type": "presence", **change}
            event = await stream.receive()
            assert (event.event, event.id) == ("presence", "new-0"), "where the stream began"
            assert event.json()["connections"] == 2
            assert {each["id"] for each in event.json()["users"]} == {alice.pk, bob.pk}
        gone = {"topic": "room.a", "joined": [], "left": [seen(bob, 0)], "connections": 1}
        assert await socket.receive_json() == {"type": "presence", **gone}


async def test_several_tabs_are_one_person_and_a_reconnect_is_not_told(alice, bob):
    carol = await sync_to_async(User.objects.create_user)("carol")
    async with testing.websocket(application, SOCKET, user=alice) as socket:
        await socket.receive_json()
        async with testing.websocket(application, SOCKET, user=bob):
            assert (await socket.receive_json())["joined"] == [seen(bob)]
            async with testing.event_stream(application, STREAM, user=bob):
                assert await socket.receive_nothing(3 * ours.PRESENCE_SECONDS)
            assert await socket.receive_nothing(3 * ours.PRESENCE_SECONDS)
        assert await socket.receive_nothing(3 * ours.PRESENCE_SECONDS)
        async with (
            testing.websocket(application, SOCKET, user=bob),
            testing.websocket(application, SOCKET, user=carol),
        ):
            frame = await socket.receive_json()
            assert (frame["joined"], frame["left"]) == ([seen(carol)], [])


async def test_events_and_presence_on_one_connection(alice, bob):
    async with testing.event_stream(application, STREAM, user=alice) as stream:
        assert (await stream.receive()).event == "presence"
        published = await publish_now("room.a", 1)
        event = await stream.receive()
        assert (event.id, event.json()) == (published.id, 1)
        async with testing.websocket(application, SOCKET, user=bob) as socket:
            assert (await stream.receive()).event == "presence"
            assert (await socket.receive_json())["type"] == "presence"
            await publish_now("room.a", 2)
            assert (await stream.receive()).json() == 2
            assert (await socket.receive_json())["data"] == 2


async def test_many_topics_on_a_socket(alice, bob):
    async with testing.websocket(application, "/ws", user=alice) as socket:
        await socket.send_json({"type": "subscribe", "topic": "room.a", "presence": True})
        assert (await socket.receive_json())["type"] == "subscribed"
        assert (await socket.receive_json())["users"] == [seen(alice)]
        await socket.send_json({"type": "subscribe", "topic": "room.b"})
        assert (await socket.receive_json())["type"] == "subscribed"
        assert (await get(bob, "/topics/room.b/presence")).json()["users"] == [seen(alice)]
        assert await socket.receive_nothing(), "of room.b nothing was asked"
        await socket.send_json({"type": "unsubscribe", "topic": "room.a"})
        assert (await socket.receive_json())["type"] == "unsubscribed"
        async with testing.websocket(application, SOCKET, user=bob):
            assert await socket.receive_nothing(0.2)
        await socket.send_json({"type": "subscribe", "topic": "room.a", "presence": 1})
        assert (await socket.receive_json())["code"] == "bad_message"


async def test_many_topics_on_a_stream(alice):
    path = "/events?topic=room.a&topic=room.b&presence=1"
    async with testing.event_stream(application, path, user=alice) as stream:
        first = [(await stream.receive()).json() for _ in range(2)]
        assert {each["topic"]: each["users"] for each in first} == {
            "room.a": [seen(alice)],
            "room.b": [seen(alice)],
        }


async def test_a_stream_of_many_topics_tells_it_of_those_that_keep_it(alice):
    path = f"/events?topic=room.a&topic=user.{alice.pk}"
    async with testing.event_stream(application, f"{path}&presence=1", user=alice) as stream:
        first = (await stream.receive()).json()
        assert (first["topic"], first["users"]) == ("room.a", [seen(alice)])
        await apublish(f"user.{alice.pk}", "also read")
        assert (await stream.receive()).json()["data"] == "also read"
    answer = await get(alice, f"/events?topic=user.{alice.pk}&presence=1")
    assert answer.status_code == 404


async def test_what_is_seen_of_a_user_is_asked_once_for_a_connection(alice):
    asked = []

    async def info(user: Any) -> dict[str, Any]:
        asked.append(user)
        return {"id": user.pk}

    with override_settings(REALTIME={**QUICK, "PRESENCE_INFO": info}):
        path = "/events?topic=room.a&topic=room.b&topic=public.a"
        async with testing.event_stream(application, path, user=alice):
            for topic in ("room.a", "public.a"):
                await eventually(lambda topic=topic: get_keeper().here.get(topic))
        assert asked == [alice]


async def test_who_is_here_by_http(alice, bob):
    async with (
        testing.websocket(application, "/ws/topics/room.a", user=alice),
        testing.websocket(application, "/ws/topics/room.a", user=alice),
    ):
        answer = await get(bob)
        content = {"topic": "room.a", "users": [seen(alice, 2)], "connections": 2}
        assert answer.json() == content
        assert answer.headers["Cache-Control"] == "no-store"
        answer = await get(bob, "/topics/room.a/presence?count=1")
        assert answer.json() == {"topic": "room.a", "connections": 2}
    assert (await get(bob)).json()["users"] == [seen(alice, 0)], "may come back"


async def test_anonymous_readers_count_and_are_not_shown(alice):
    admin = await sync_to_async(User.objects.create_superuser)("root")
    path = "/ws/topics/public.a"
    async with testing.websocket(application, f"{path}?presence=1", user=admin) as socket:
        assert (await socket.receive_json())["connections"] == 1
        async with testing.websocket(application, path):
            frame = await socket.receive_json()
            assert (frame["joined"], frame["left"], frame["connections"]) == ([], [], 2)
    assert (await get(alice, "/topics/public.a/presence")).status_code == 403


@pytest.mark.parametrize(
    ("path", "name", "status"),
    [
        ("/topics/room.a/presence", None, 401),
        ("/topics/public.a/presence", None, 401),
        ("/topics/public.a/presence", "alice", 403),
        ("/topics/public.a/events?presence=1", "alice", 403),
        ("/events?topic=room.a&topic=public.a&presence=1", "alice", 403),
        ("/topics/user.1000/presence", "alice", 403),
        ("/topics/a b/presence", "alice", 400),
    ],
)
async def test_who_may_not_see_it(path, name, status, alice):
    assert (await get(alice if name else None, path)).status_code == status


async def test_topics_without_presence(alice):
    own = f"user.{alice.pk}"
    for path in (f"/topics/{own}/presence", f"/topics/{own}/events?presence=1"):
        answer = await get(alice, path)
        assert answer.status_code == 404
        assert "PRESENCE" in answer.json()["detail"]
    with pytest.raises(testing.ConnectionRefused) as refused:
        async with testing.websocket(application, f"/ws/topics/{own}?presence=1", user=alice):
            pass
    assert refused.value.status == 400
    async with testing.websocket(application, "/ws", user=alice) as socket:
        await socket.send_json({"type": "subscribe", "topic": own, "presence": True})
        assert (await socket.receive_json())["code"] == "presence_off"


SEEING = {"room.a"}


async def rule(user: Any, topic: str, action: str) -> bool:
    return action != "presence" or topic in SEEING


async def test_presence_ends_with_the_right_to_see_it(alice, bob, monkeypatch):
    with override_settings(REALTIME={**QUICK, "PERMISSION": rule}):
        async with (
            testing.websocket(application, SOCKET, user=alice) as socket,
            testing.event_stream(application, STREAM, user=alice) as stream,
        ):
            await socket.receive_json()
            await stream.receive()
            monkeypatch.setattr(f"{__name__}.SEEING", set())
            await get_connections().check()
            frame = await socket.receive_json()
            assert (frame["type"], frame["code"]) == ("error", "not_allowed")
            with pytest.raises(testing.ConnectionClosed):
                await stream.receive()
            async with testing.websocket(application, "/ws/topics/room.a", user=bob):
                assert await socket.receive_nothing(0.2)
                await publish_now("room.a", 1)
                assert (await socket.receive_json())["data"] == 1, "the events go on"


async def test_right_to_see_it_that_is_lost_while_the_topic_is_joined_shows_nobody(alice):
    asked, answer, denied = asyncio.Event(), asyncio.Event(), asyncio.Event()
    seeing = {"room.a"}

    async def info(user: Any) -> dict[str, Any]:
        asked.set()
        await answer.wait()
        return {}

    async def rule(user: Any, topic: str, action: str) -> bool:
        if action == "presence" and not seeing:
            denied.set()
        return action != "presence" or topic in seeing

    async def lose() -> None:
        await asked.wait()
        seeing.clear()
        await get_connections().check()
        await denied.wait()
        answer.set()

    with override_settings(REALTIME={**QUICK, "PERMISSION": rule, "PRESENCE_INFO": info}):
        async with testing.websocket(application, "/ws", user=alice) as socket:
            losing = asyncio.create_task(lose())
            await socket.send_json({"type": "subscribe", "topic": "room.a", "presence": True})
            assert (await socket.receive_json())["type"] == "subscribed"
            assert (await socket.receive_json())["code"] == "not_allowed"
            await losing
            assert await socket.receive_nothing(0.2)
            await publish_now("room.a", 1)
            assert (await socket.receive_json())["data"] == 1, "the events go on"
        seeing.add("room.a")
        for event in asked, answer, denied:
            event.clear()
        losing = asyncio.create_task(lose())
        async with testing.event_stream(application, STREAM, user=alice) as stream:
            with pytest.raises(testing.ConnectionClosed):
                await stream.receive()
        await losing


@pytest.mark.usefixtures("at_once")
async def test_a_revoked_user_is_there_no_more(alice, bob):
    async with testing.websocket(application, SOCKET, user=alice) as socket:
        async with testing.websocket(application, "/ws/topics/room.a", user=bob) as other:
            while json.loads(await socket.receive())["connections"] < 2:
                pass
            bob.is_active = False
            await bob.asave()
            with pytest.raises(testing.ConnectionClosed):
                await other.receive()
        assert (await socket.receive_json())["left"] == [seen(bob, 0)]


async def test_a_topic_that_is_left_before_the_user_s_info_has_come_has_nobody(alice):
    asked, answer = asyncio.Event(), asyncio.Event()

    async def info(user: Any) -> dict[str, Any]:
        asked.set()
        await answer.wait()
        return {}

    with override_settings(REALTIME={**QUICK, "PRESENCE_INFO": info}):
        async with MemberSubscription(Identity(alice, "session")) as subscription:
            adding = asyncio.create_task(subscription.add("room.a"))
            await asked.wait()
            subscription.remove("room.a")
            answer.set()
            await adding
            assert get_keeper().here == {}


async def test_nothing_is_done_where_it_is_off(alice, django_assert_num_queries):
    with override_settings(REALTIME={"BUS": "memory"}):
        async with testing.websocket(application, "/ws/topics/room.a", user=alice):
            keeper = get_keeper()
            assert (keeper.here, keeper._task) == ({}, None)


async def test_the_last_to_leave_ends_the_work(alice):
    async with testing.websocket(application, SOCKET, user=alice):
        assert get_keeper()._task is not None
    await eventually(lambda: get_keeper()._task is None)
