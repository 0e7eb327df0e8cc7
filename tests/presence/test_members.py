"""`members` and `is_online`, from threads and from the event loop."""

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser, User

from realtime import InvalidTopic, ais_online, amembers, is_online, members, testing

from ..support.asgi import application

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


async def test_members_and_who_is_online(alice, bob):
    path = "/ws/topics/room.a"
    async with (
        testing.websocket(application, path, user=alice),
        testing.websocket(application, path, user=alice),
    ):
        seen = {"id": alice.pk, "username": "alice", "connections": 2}
        assert await amembers("room.a") == [seen], "what is not written yet too"
        async for _ in attempts():  # until it is written
            if await sync_to_async(members)("room.a") == [seen]:
                break
        assert await sync_to_async(is_online)(alice)
        assert await ais_online(alice)
    assert await amembers("room.a") == [seen | {"connections": 0}], "may come back"
    assert await amembers("room.b") == []
    assert not await ais_online(bob)


@pytest.mark.usefixtures("at_once")
async def test_who_has_left_is_neither(alice):
    async with testing.websocket(application, "/ws/topics/room.a", user=alice):
        pass
    async for _ in attempts():
        if not await ais_online(alice) and not await amembers("room.a"):
            break


async def attempts():
    for number in range(100):
        yield number
        await asyncio.sleep(0.1)
    raise AssertionError("It has not come to that.")


async def test_who_is_nobody(django_user_model):
    assert not await ais_online(AnonymousUser())
    assert not is_online(AnonymousUser())
    assert not await ais_online(User(pk=1_000))
    with pytest.raises(InvalidTopic):
        await amembers("a b")
