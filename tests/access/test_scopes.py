"""A token's scopes: less than its user may, never more, whichever way a request comes."""

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ValidationError
from django.test import override_settings

from realtime.access.permissions import may, require
from realtime.access.scopes import is_scoped, require_unscoped, scopes_of, with_scopes
from realtime.access.service_user import ServiceUser
from realtime.access.tickets import create_ticket
from realtime.access.tokens import create_token
from realtime.access.user_info import publisher_of, sender_meta
from realtime.access.users import find_identity
from realtime.exceptions import NotAllowed
from realtime.models import AccessToken

from ..support.clients import ask, bearer, connect, open_stream, receive, refusal, send
from ..support.credentials import asked, new_ticket
from ..support.servers import wait_until
from ..support.sites import site_for_module

ALICE = User(pk=7, username="alice")
BOSS = User(pk=8, username="boss", is_superuser=True)


async def always(user: Any, topic: str, action: str) -> bool:
    return True


async def never(user: Any, topic: str, action: str) -> bool:
    raise AssertionError("A service has no user that a rule could judge.")


# -- with the rule


async def test_scopes_narrow_what_the_rule_allows_and_never_widen_it():
    alice = with_scopes(ALICE, "read:room.* publish:user.* read:secret")
    for topic, action, allowed in [
        ("room.a", "read", True),
        ("room.a", "publish", False),  # the rule would
        ("user.7", "publish", True),
        ("user.7", "read", False),
        ("user.8", "publish", False),  # the scopes would
        ("secret", "read", False),
    ]:
        assert await may(alice, topic, action) is allowed, (topic, action)
    assert await may(ALICE, "user.7", "read"), "the user without the token is as before"


async def test_superusers_are_narrowed_too():
    boss = with_scopes(BOSS, "read:secret")
    assert await may(boss, "secret", "read")
    assert not await may(boss, "secret", "publish")
    assert not await may(boss, "public.a", "read")


async def test_the_refusal_says_that_it_was_the_token():
    with pytest.raises(NotAllowed, match=r"no scope for publish on 'room\.a'"):
        await require(with_scopes(ALICE, "read:*"), "room.a", "publish")
    with pytest.raises(NotAllowed, match="You may not read 'secret'"):
        await require(with_scopes(ALICE, "read:*"), "secret", "read")


async def test_a_service_may_what_its_scopes_say_and_no_rule_is_asked():
    billing = with_scopes(ServiceUser("billing"), "publish:orders.* read:*")
    with override_settings(REALTIME={"PERMISSION": never}):
        assert await may(billing, "orders.1", "publish")
        assert await may(billing, "user.7", "read")
        assert not await may(billing, "user.7", "publish")
        assert not await may(billing, "realtime.revocation", "read")


async def test_a_service_without_scopes_may_nothing():
    with override_settings(REALTIME={"PERMISSION": always}):
        assert not await may(ServiceUser("billing"), "public.a", "read")
        with pytest.raises(NotAllowed, match="no scope"):
            await require(ServiceUser("billing"), "public.a", "read")


def test_scopes_travel_with_a_copy_of_the_user():
    alice = with_scopes(ALICE, "read:a")
    assert (scopes_of(alice), scopes_of(ALICE), scopes_of(AnonymousUser())) == ("read:a", "", "")
    assert alice == ALICE
    assert with_scopes(ALICE, "") is ALICE
    assert [is_scoped(each) for each in (alice, ALICE, ServiceUser("x"))] == [True, False, True]
    require_unscoped(ALICE)
    for user in (alice, ServiceUser("x")):
        with pytest.raises(NotAllowed, match="topics of its scopes alone"):
            require_unscoped(user)


async def test_a_service_is_seen_by_its_name():
    billing = with_scopes(ServiceUser("billing"), "publish:*")
    assert await sender_meta(billing) == {"sender": {"service": "billing"}}
    assert publisher_of(billing) == "service.billing"
    with override_settings(REALTIME={"PRESENCE_INFO": None}):
        assert await sender_meta(billing) is None


# -- tokens and tickets


@pytest.mark.django_db(transaction=True)
def test_token_and_its_tickets_have_the_scopes(alice):
    token, row = create_token(alice, scopes=" read:room.*\n publish:x ", expires_in=60)
    plain, _ = create_token(alice)
    assert row.scopes == "read:room.* publish:x"
    identity = asked(bearer=token)
    assert (identity.user, scopes_of(identity.user)) == (alice, row.scopes)
    assert identity.expires == row.expires
    assert scopes_of(asked(bearer=plain).user) == ""
    found = find_identity("token", str(row.pk))
    assert found is not None
    assert (scopes_of(found.user), found.expires) == (row.scopes, row.expires)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("has_user", [True, False])
def test_ticket_of_a_ticket_has_scopes_and_end_of_the_token(alice, has_user):
    user = alice if has_user else None
    ticket = new_ticket(user, name="billing", scopes="read:room.*", expires_in=60)
    identity = asked(query=f"ticket={ticket}")
    row = AccessToken.objects.get()
    for _ in range(2):
        assert scopes_of(identity.user) == "read:room.*"
        assert identity.expires == row.expires
        assert identity.user == (alice if has_user else ServiceUser("billing"))
        again = async_to_sync(create_ticket)(identity)
        identity = asked(query=f"ticket={again}")
    AccessToken.objects.update(scopes="read:other")
    found = find_identity(identity.source, identity.key)
    assert found is not None
    assert scopes_of(found.user) == "read:other"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"scopes": "room.*"}, "no scope"),
        ({"scopes": "read:" + "a" * 10_000}, "at most"),
        ({"scopes": "read:a\0b"}, "no topic's name matches"),
        ({"user": None, "name": "x"}, "needs scopes"),
        ({"user": None, "name": "x", "scopes": " "}, "needs scopes"),
        ({"user": None, "scopes": "read:a"}, "needs a name"),
    ],
)
def test_what_is_wrong_is_not_saved(alice, fields, says):
    with pytest.raises(ValidationError, match=says):
        create_token(**{"user": alice, **fields})
    assert not AccessToken.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_scopes_that_went_past_the_check_give_nothing_and_can_be_revoked(alice):
    token, row = create_token(alice, scopes="read:room.*")
    AccessToken.objects.update(scopes="read:room.* nonsense")
    user = asked(bearer=token).user
    assert not async_to_sync(may)(user, "room.a", "read")
    row.refresh_from_db()
    row.revoked = row.created
    row.save()
    assert find_identity("token", str(row.pk)) is None


# -- every way in


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    """A served site with tokens: `reader` and `writer` of a superuser, and one of a service."""
    with site_for_module(_site_template, {"KEEPALIVE_SECONDS": 0.3}) as site:
        site.reader, site.writer, site.service = site.shell.run(
            "user = User.objects.get(username='admin')\n"
            "result = [create_token(*each)[0] if not scopes else "
            "create_token(*each, name='billing', scopes=scopes)[0] for each, scopes in [\n"
            "    ([user], 'read:room.*'), ([user], 'publish:room.*'),\n"
            "    ([None], 'read:room.a publish:room.* presence:room.a')]]"
        )
        yield site


def get(here: Any, path: str, token: str) -> httpx.Response:
    return httpx.get(f"{here.url}{path}", headers=bearer(token))


def post(here: Any, path: str, token: str, content: str) -> httpx.Response:
    return httpx.post(f"{here.url}{path}", headers=bearer(token), content=content)


def test_publishing_needs_a_scope_by_each_way(here):
    batch = json.dumps([{"topic": "room.a", "data": 1}, {"topic": "secret", "data": 1}])
    for token in (here.writer, here.service):
        assert post(here, "/topics/room.a/events", token, "1").status_code == 201
        assert post(here, "/topics/secret/events", token, "1").status_code == 403
        answer = post(here, "/events", token, batch)
        assert (answer.status_code, "no scope" in answer.json()["detail"]) == (403, True)
        assert post(here, "/events", token, batch.replace("secret", "room.b")).status_code == 201
        # By Django, which takes a token from the query too.
        url = f"{here.url}/topics/secret/events?token={token}"
        assert httpx.post(url, content="1").status_code == 403
    assert post(here, "/topics/room.a/events", here.reader, "1").status_code == 403


def test_reading_needs_a_scope_by_each_way(here):
    for path in ("/topics/{}/events", "/events?topic=room.a&topic={}", "/topics/{}/history"):
        assert get(here, path.format("secret"), here.reader).status_code == 403, path
        assert get(here, path.format("room.a"), here.writer).status_code == 403, path
    for token in (here.reader, here.service):
        assert get(here, "/topics/room.a/history", token).status_code == 200


async def test_streams_and_sockets_of_a_scoped_token(here):
    for token in (here.reader, here.service):
        events = f"{here.url}/topics/room.a/events?token={token}"
        async with (
            open_stream(events) as stream,
            connect(f"{here.ws_url}/ws/topics/room.a?token={token}&meta=1") as one,
            connect(f"{here.ws_url}/ws?token={token}") as many,
        ):
            assert (await ask(many, {"type": "subscribe", "topic": "room.a"}))["recovered"]
            answer = await ask(many, {"type": "subscribe", "topic": "secret"})
            assert answer["code"] == "not_allowed"
            answer = await ask(many, {"type": "publish", "topic": "secret", "data": 1})
            assert answer["code"] == "not_allowed"
            url = f"{here.url}/topics/room.a/events"
            async with httpx.AsyncClient(headers=bearer(here.service)) as client:
                assert (await client.post(url, json="hi")).status_code == 201
            assert (await stream.next()).json() == "hi"
            assert (await receive(one))["meta"] == {"sender": {"service": "billing"}}
            assert (await receive(many))["data"] == "hi"
    for path in ("/ws/topics/secret", "/ws/topics/public.a"):
        assert (await refusal(f"{here.ws_url}{path}?token={here.service}"))[0] == 403


async def test_service_publishes_over_a_socket_and_is_the_sender(here):
    async with connect(f"{here.ws_url}/ws?meta=1&token={here.service}") as socket:
        await ask(socket, {"type": "subscribe", "topic": "room.a"})
        await send(socket, {"type": "publish", "topic": "room.a", "data": 2, "key": "k"})
        answers = [await receive(socket), await receive(socket)]
        [event] = [each for each in answers if each["type"] == "event"]
        assert event["meta"] == {"sender": {"service": "billing"}}


def test_ticket_of_a_scoped_token_is_for_nothing_else(here):
    for token in (here.writer, here.service):
        answer = post(here, "/realtime/tickets", token, "")
        assert answer.status_code == 201
        for path in ("/topics/secret/events?", "/progress?", "/chat?prompt=x"):
            ticket = post(here, "/realtime/tickets", token, "").json()["ticket"]
            assert httpx.get(f"{here.url}{path}&ticket={ticket}").status_code == 403, path


def test_views_that_are_about_no_topic_refuse_a_scoped_token(here):
    for token in (here.reader, here.service):
        for path in ("/chat?prompt=x", "/progress?steps=1", "/firehose?mb=1"):
            answer = get(here, path, token)
            assert (answer.status_code, "scopes" in answer.text) == (403, True), path
        assert post(here, "/chat", token, '{"prompt": "x"}').status_code == 403


def test_what_staff_see_of_the_server_is_not_for_their_scoped_tokens(here):
    for token in (here.reader, here.service):
        answer = get(here, "/metrics", token)
        assert (answer.status_code, "scopes" in answer.text) == (403, True)
        assert "checks" not in get(here, "/healthz?verbose=1", token).text
    assert get(here, "/metrics", here.tokens["admin"]).status_code == 200
    # Where the look-up of the token takes over `STAFF_SECONDS`, the answer is the plain one.
    wait_until(lambda: "checks" in get(here, "/healthz?verbose=1", here.tokens["admin"]).text)


async def test_consumers_of_a_sites_own_refuse_a_scoped_token(here):
    for token in (here.reader, here.service):
        for path in ("/ws/user", "/ws/auth/query", "/ws/echo"):
            status, body = await refusal(f"{here.ws_url}{path}?token={token}")
            assert (status, "scopes" in body["detail"]) == (403, True), path
        async with connect(f"{here.ws_url}/ws/auth/message") as socket:
            await send(socket, {"token": token})
            with pytest.raises(Exception, match="4403"):
                await asyncio.wait_for(socket.recv(), 20)
