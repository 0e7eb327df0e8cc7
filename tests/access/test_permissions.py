"""`realtime.access.permissions`: unknown means denied."""

import contextlib
import json
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from channels.routing import URLRouter
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.db import DatabaseError, connection
from django.test import AsyncClient, override_settings
from django.urls import path

from realtime import testing
from realtime.access.permissions import may, require, require_signed_in
from realtime.access.scopes import with_scopes
from realtime.access.service_user import ServiceUser
from realtime.access.tokens import create_token
from realtime.exceptions import NotAllowed, NotIdentified
from realtime.http.publish_consumer import PublishConsumer
from realtime.models import Event

from ..support.admin import url
from ..support.asgi import application, http
from ..support.clients import bearer
from ..support.databases import ON_POSTGRESQL

NOBODY = AnonymousUser()
ALICE = User(pk=7, username="alice")
STAFF = User(pk=8, username="staff", is_staff=True, is_superuser=True)
PEOPLE = [NOBODY, ALICE, STAFF]


@pytest.mark.parametrize("action", ["read", "publish", "presence"])
@pytest.mark.parametrize(
    ("topic", "allowed"),
    [
        # nobody, alice (7), staff
        ("user.7", (False, True, True)),
        ("user.8", (False, False, True)),
        ("user.77", (False, False, True)),
        ("user.7.x", (False, True, True)),
        ("user.7.", (False, True, True)),
        ("user.77.x", (False, False, True)),
        ("user.", (False, False, True)),
        ("user.None", (False, False, True)),
        ("User.7", (False, False, True)),
        ("room.lobby", (False, True, True)),
        ("room.", (False, True, True)),
        ("room", (False, False, True)),
        ("rooms.a", (False, False, True)),
        ("Room.a", (False, False, True)),
        ("public", (False, False, True)),
        ("publicity.a", (False, False, True)),
        ("realtime.revocation", (False, False, True)),
        ("anything", (False, False, True)),
    ],
)
async def test_the_default_rule(topic, allowed, action):
    assert tuple([await may(user, topic, action) for user in PEOPLE]) == allowed


async def test_key_with_a_dot_has_no_topic_of_its_own():
    """It would be below that of another user, who may read it."""
    bob = User(pk="alice.bob")
    for topic in ("user.alice.bob", "user.alice.bob.x", "user.alice"):
        assert not await may(bob, topic, "read")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("permissions", "is_staff", "allowed"),
    [
        ((), True, set()),
        (("view_event",), True, {"read", "presence"}),
        (("add_event",), True, {"publish"}),
        (("view_event", "add_event"), True, {"read", "publish", "presence"}),
        (("view_topic", "change_event"), True, set()),
        (("view_event", "add_event"), False, set()),
    ],
)
async def test_topics_of_others_are_for_staff_with_the_permission(permissions, is_staff, allowed):
    clerk = await User.objects.acreate(username="clerk", is_staff=is_staff)
    found = Permission.objects.filter(codename__in=permissions, content_type__app_label="realtime")
    await clerk.user_permissions.aset([each async for each in found])
    actions = ("read", "publish", "presence")
    for topic in (f"user.{clerk.pk + 1}", "orders"):
        assert {action for action in actions if await may(clerk, topic, action)} == allowed
    for action in actions:  # else they could end connections, and learn addresses
        assert not await may(clerk, "realtime.revocation", action)
    for topic in (f"user.{clerk.pk}", "room.a", "public.a"):
        assert await may(clerk, topic, "read")
        assert await may(clerk, topic, "publish")


async def test_who_reads_what_anyone_may_read_is_for_staff():
    topics = {"open.*": {"READ": "anyone"}, "shared.*": {"READ": "users"}}
    with override_settings(REALTIME={"TOPICS": topics}):
        for topic in ("public.news", "open.a"):
            assert [await may(user, topic, "presence") for user in PEOPLE] == [False, False, True]
        assert [await may(user, "shared.a", "presence") for user in PEOPLE] == [False, True, True]


async def test_public_topics():
    assert [await may(user, "public.news", "read") for user in PEOPLE] == [True, True, True]
    assert [await may(user, "public.news", "publish") for user in PEOPLE] == [False, True, True]


async def test_a_user_model_without_staff():
    class Member:
        pk = 7
        is_authenticated = True

    class Clerk(Member):
        is_staff = True  # and no permissions: without PermissionsMixin

    assert not await may(Clerk(), "anything", "read")
    assert await may(Member(), "user.7", "read")
    assert not await may(Member(), "anything", "read")


async def test_require():
    assert await require(ALICE, "room.a", "publish") is None
    with pytest.raises(NotAllowed, match=r"You may not read 'user\.8'"):
        await require(ALICE, "user.8", "read")
    with pytest.raises(NotIdentified, match=r"Sign in.* to publish 'room\.a'"):
        await require(NOBODY, "room.a", "publish")


def test_who_is_signed_in_is_a_user_and_no_service():
    require_signed_in(ALICE)
    for user, detail in [(NOBODY, "Sign in"), (ServiceUser("billing"), "a service's")]:
        with pytest.raises(NotIdentified, match=detail):
            require_signed_in(user)


def answers(answer):
    async def rule(user, topic, action):
        return answer

    return rule


@pytest.mark.parametrize("answer", [None, 0, 1, "yes", [1], object(), False])
async def test_a_rule_that_does_not_say_true_denies(answer):
    with override_settings(REALTIME={"PERMISSION": answers(answer)}):
        assert await may(STAFF, "a", "read") is False
        with pytest.raises(NotAllowed):
            await require(STAFF, "a", "read")


async def test_a_rule_of_the_sites_own():
    asked = []

    async def rule(user, topic, action):
        asked.append((user, topic, action))
        return True

    with override_settings(REALTIME={"PERMISSION": rule}):
        await require(NOBODY, "a", "publish")
    assert asked == [(NOBODY, "a", "publish")]


async def test_a_rule_that_fails_denies_and_the_error_comes_through():
    async def rule(user, topic, action):
        raise LookupError("the rule's database is gone")

    with override_settings(REALTIME={"PERMISSION": rule}):
        for ask in (may, require):
            with pytest.raises(LookupError):
                await ask(STAFF, "a", "read")


async def test_a_rule_that_is_not_async_permits_nothing():
    rule = {"PERMISSION": lambda user, topic, action: True}
    with override_settings(REALTIME=rule), pytest.raises(TypeError):
        await require(STAFF, "a", "read")


@pytest.mark.parametrize(
    ("people", "allowed"),
    [
        ("rule", (False, True, True)),
        ("anyone", (True, True, True)),
        ("users", (False, True, True)),
        ("staff", (False, False, True)),
        ("nobody", (False, False, False)),
    ],
)
async def test_a_topic_s_settings_say_who_may(people, allowed):
    topics = {"room.r*": {"READ": people}, "room.p*": {"PUBLISH": people}}
    by_rule = (False, True, True)
    with override_settings(REALTIME={"TOPICS": topics}):
        for topic, action, expected in (
            ("room.r", "read", allowed),
            ("room.r", "publish", by_rule),
            ("room.p", "publish", allowed),
            ("room.p", "read", by_rule),
            ("room.x", "read", by_rule),
        ):
            assert tuple([await may(user, topic, action) for user in PEOPLE]) == expected


async def test_staff_are_who_is_marked_so():
    topics = {"*": {"READ": "staff"}}
    people = [
        User(pk=9, username="clerk", is_staff=True),
        User(pk=10, username="root", is_superuser=True),
        ALICE,
    ]
    with override_settings(REALTIME={"TOPICS": topics}):
        found = [await may(user, "orders", "read") for user in people]
        assert found == [True, True, False]
        assert not await may(ALICE, "user.7", "read"), "it stands in the place of the rule"


async def always(user: Any, topic: str, action: str) -> bool:
    return True


@pytest.mark.parametrize(
    "own",
    [{"TOPICS": {"*": {"READ": "anyone", "PUBLISH": "anyone"}}}, {"PERMISSION": always}],
    ids=["pattern", "rule"],
)
async def test_nothing_opens_the_package_s_own_topics(own):
    service = with_scopes(ServiceUser("billing"), "read:realtime.* publish:realtime.*")
    with override_settings(REALTIME=own):
        for action in ("read", "publish"):
            assert await may(NOBODY, "orders", action)
            for user in (NOBODY, ALICE, service):
                for topic in ("realtime.revocation", "realtime.inspection.1", "realtime.limits"):
                    assert not await may(user, topic, action)
            assert await may(STAFF, "realtime.revocation", action)


async def test_service_that_has_sent_its_token_is_not_told_to_send_one():
    service = with_scopes(ServiceUser("billing"), "publish:realtime.*")
    with pytest.raises(NotAllowed, match=r"You may not publish 'realtime\.limits'"):
        await require(service, "realtime.limits", "publish")


# -- the doors by which others than the site's own code publish


async def by_form(user: User, address: str, content: Any, kind: str = "application/json") -> None:
    client = AsyncClient()
    await client.aforce_login(user)
    await client.post(address, content, content_type=kind)


async def by_post(user: User, topic: str) -> None:
    await by_form(user, f"/topics/{topic}/events", "1")


async def by_batch(user: User, topic: str) -> None:
    await by_form(user, "/events", json.dumps([{"topic": topic, "data": 1}]))


async def by_token(user: User, topic: str) -> None:
    token, _ = await sync_to_async(create_token)(user)
    site = URLRouter([path("topics/<topic>/events", PublishConsumer(http))])
    transport = httpx.ASGITransport(site)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        await client.post(f"/topics/{topic}/events", json=1, headers=bearer(token))


async def by_socket(user: User, topic: str) -> None:
    async with testing.websocket(application, "/ws", user=user) as socket:
        await socket.send_json({"type": "publish", "topic": topic, "data": 1})
        await socket.receive_json()


async def by_topic_socket(user: User, topic: str) -> None:
    with contextlib.suppress(testing.ConnectionRefused):
        async with testing.websocket(application, f"/ws/topics/{topic}", user=user) as socket:
            await socket.send_json({"type": "publish", "data": 1})
            await socket.receive_json()


async def by_admin(user: User, topic: str) -> None:
    client = AsyncClient()
    await client.aforce_login(user)
    await client.post(url("realtime_publish"), {"topic": topic, "type": "a", "json": "1"})


def _by_sql(user: User, topic: str) -> None:
    with contextlib.suppress(DatabaseError), connection.cursor() as cursor:
        cursor.execute("SELECT realtime_publish(%s, '1')", [topic])


by_sql = sync_to_async(_by_sql)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "door",
    [
        *(by_post, by_batch, by_token, by_socket, by_topic_socket, by_admin),
        pytest.param(by_sql, marks=pytest.mark.skipif(not ON_POSTGRESQL, reason="PostgreSQL's")),
    ],
)
async def test_no_door_takes_an_event_for_the_package_s_own_topics(door):
    """Also where a rule opens everything, and Django's permissions as well."""
    user = await User.objects.acreate(username="clerk", is_staff=True)
    rights = Permission.objects.filter(content_type__app_label="realtime")
    await sync_to_async(lambda: user.user_permissions.set(rights))()
    with override_settings(REALTIME={"PERMISSION": always, "BUS": "memory"}):
        for topic in ("realtime.revocation", "realtime.limits", "room.a"):
            await door(user, topic)
    stored = [event async for event in Event.objects.values_list("topic__name", flat=True)]
    assert stored == ["room.a"]
