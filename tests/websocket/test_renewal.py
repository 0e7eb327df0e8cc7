"""`authenticate` on an open socket: another credential of the same user, over real sockets."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import override_settings
from websockets import ConnectionClosed, InvalidStatus

from realtime import testing
from realtime.access.connections import get_connections
from realtime.access.identity import Identity
from realtime.access.tokens import create_token

from ..support.asgi import application
from ..support.attempts import three_tries_of
from ..support.clients import (
    ask,
    bearer,
    close_code,
    connect,
    eventually,
    receive,
    send,
    session_cookie,
)
from ..support.sites import site_for_module


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    settings = {"RECHECK_SECONDS": 1.0, "MAX_CONNECTIONS_PER_TOKEN": 3}
    with site_for_module(_site_template, settings) as site:
        yield site


async def token_of(here: Any, username: str | None = "alice", **options: Any) -> str:
    user = "None" if username is None else f"User.objects.get(username={username!r})"
    code = f"result = create_token({user}, **{options!r})[0]"
    return str(await asyncio.to_thread(here.shell.run, code))


async def ticket_of(here: Any, token: str) -> str:
    async with httpx.AsyncClient(headers=bearer(token)) as client:
        answer = await client.post(f"{here.url}/realtime/tickets")
    return str(answer.json()["ticket"])


def renewal(token: object, **more: Any) -> dict[str, Any]:
    return {"type": "authenticate", "token": token, **more}


async def subscribed(socket: Any, *topics: str) -> None:
    for topic in topics:
        assert (await ask(socket, {"type": "subscribe", "topic": topic}))["recovered"]


async def test_socket_outlives_the_token_that_it_was_opened_with(here):
    path, lives = "/ws/topics/room.a", iter((3, 6, 12))

    async def attempt() -> None:
        new = await token_of(here, expires_in=3600)
        old = await token_of(here, expires_in=next(lives))
        async with (
            connect(f"{here.ws_url}{path}?token={old}") as socket,
            connect(f"{here.ws_url}{path}?token={old}") as other,
        ):
            answer = await ask(socket, renewal(new, ref=7))
            left = datetime.fromisoformat(answer.pop("expires")) - datetime.now().astimezone()
            assert 3000 < left.total_seconds() <= 3600
            assert answer == {"type": "authenticated", "user": "alice", "ref": 7}
            assert await close_code(other) == 4401
            assert await ask(socket, {"type": "ping"}) == {"type": "pong"}
            code = f"from realtime.access.identity import digest; digest = digest({new!r})\n"
            code += "User.objects.get(username='alice').realtime_tokens.get(digest=digest).delete()"
            await asyncio.to_thread(here.shell.run, code)
            assert await close_code(socket) == 4401, "the new one is what counts now"

    await three_tries_of(attempt)  # both are opened before it ends


async def test_the_same_token_may_come_again(here):
    token = await token_of(here)
    async with connect(f"{here.ws_url}/ws?token={token}") as socket:
        answer = await ask(socket, renewal(token))
        assert answer == {"type": "authenticated", "user": "alice", "expires": None}
        await subscribed(socket, "room.a")


async def test_ticket_renews_a_session_s_socket_and_is_good_once(here):
    cookie = await asyncio.to_thread(session_cookie, here, "alice")
    token = await token_of(here, expires_in=3600)
    ticket = await ticket_of(here, token)
    async with connect(f"{here.ws_url}/ws", additional_headers=cookie) as socket:
        answer = await ask(socket, renewal(ticket))
        assert (answer["type"], answer["expires"] is None) == ("authenticated", False)
        answer = await ask(socket, renewal(ticket, ref=1))
        assert (answer["code"], answer["ref"]) == ("not_identified", 1)
        await subscribed(socket, "room.a")


async def test_another_user_s_token_is_refused_and_the_old_identity_stays(here):
    service = await token_of(here, None, name="alice", scopes="read:*")
    async with connect(f"{here.ws_url}/ws?token={await token_of(here)}&meta=1") as socket:
        await subscribed(socket, "room.mine")
        for token in (here.tokens["bob"], here.tokens["admin"], service):
            answer = await ask(socket, renewal(token, ref="r"))
            assert (answer["type"], answer["code"], answer["ref"]) == ("error", "not_allowed", "r")
        await send(socket, {"type": "publish", "topic": "room.mine", "data": 1})
        answers = [await receive(socket), await receive(socket)]
        [event] = [each for each in answers if each["type"] == "event"]
        assert event["meta"]["sender"]["username"] == "alice"
        answer = await ask(socket, {"type": "subscribe", "topic": "secret"})
        assert answer["code"] == "not_allowed"


async def test_an_anonymous_socket_stays_anonymous(here):
    async with connect(f"{here.ws_url}/ws") as socket:
        assert (await ask(socket, renewal(here.tokens["alice"])))["code"] == "not_allowed"
        answer = await ask(socket, {"type": "subscribe", "topic": "room.a"})
        assert answer["code"] == "not_identified"


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (None, "bad_message"),
        (7, "bad_message"),
        (["rt_"], "bad_message"),
        ("", "not_identified"),
        ("rt_unknown", "not_identified"),
        ("rt_\0", "not_identified"),
        ("tk_\0", "not_identified"),
        ("tk_unknown", "not_identified"),
        ("rt_" + "x" * 3_000, "not_identified"),
        ("tk_" + "x" * 3_000, "not_identified"),
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_what_is_no_credential_leaves_the_socket_as_it_was(here, token, code):
    async with connect(f"{here.ws_url}/ws?token={here.tokens['alice']}") as socket:
        assert (await ask(socket, renewal(token)))["code"] == code
        await subscribed(socket, "room.a")


async def test_topics_that_the_new_token_has_no_scope_for_end(here):
    narrow = await token_of(here, scopes="read:room.a")
    wide = await token_of(here)
    async with connect(f"{here.ws_url}/ws?token={wide}") as socket:
        await subscribed(socket, "room.a", "room.b")
        lost = await ask(socket, renewal(narrow))
        assert (lost["type"], lost["topic"]) == ("unsubscribed", "room.b")
        assert (await receive(socket))["type"] == "authenticated"
        answer = await ask(socket, {"type": "subscribe", "topic": "room.b"})
        assert answer["code"] == "not_allowed"
        assert (await ask(socket, renewal(wide)))["type"] == "authenticated"
        await subscribed(socket, "room.b")
    async with connect(f"{here.ws_url}/ws/topics/room.b?token={wide}") as socket:
        await send(socket, renewal(narrow))
        assert await close_code(socket) == 4403


async def test_rotated_token_of_a_service_renews_it(here):
    one, two, other = [
        await token_of(here, None, name=name, scopes="read:room.*")
        for name in ("billing", "billing", "shipping")
    ]
    async with connect(f"{here.ws_url}/ws?token={one}") as socket:
        assert (await ask(socket, renewal(two)))["user"] == "billing"
        assert (await ask(socket, renewal(other)))["code"] == "not_allowed"


async def test_socket_counts_for_the_token_that_is_valid_now(here):
    one, two = await token_of(here), await token_of(here)
    async with AsyncExitStack() as stack:

        async def open_by(token: str) -> Any:
            return await stack.enter_async_context(connect(f"{here.ws_url}/ws?token={token}"))

        sockets = [await open_by(one) for _ in range(3)]
        for socket in sockets[:2]:
            assert (await ask(socket, renewal(two)))["type"] == "authenticated"
        sockets += [await open_by(one), await open_by(one), await open_by(two)]
        answer = await ask(sockets[3], renewal(two, ref=1))
        assert (answer["code"], answer["retry_after"], answer["ref"]) == ("too_many", 10, 1)
        with pytest.raises(InvalidStatus) as refused:
            await open_by(one)
        assert refused.value.response.status_code == 429


async def test_a_thousand_of_them_close_the_socket_and_cost_few_look_ups(here):
    token = here.shell.make_token("alice")  # of its own: it is kept out afterwards
    async with connect(f"{here.ws_url}/ws?token={token}") as socket:
        message = json.dumps(renewal(token))

        async def flood() -> None:
            for _ in range(1000):
                await socket.send(message)

        task = asyncio.ensure_future(flood())
        answers = []
        with suppress(ConnectionClosed):
            while True:
                answers.append(json.loads(await asyncio.wait_for(socket.recv(), 20)))
        assert socket.close_code == 4429
        await asyncio.gather(task, return_exceptions=True)
        done = [each for each in answers if each["type"] == "authenticated"]
        assert 5 <= len(done) < 50
        refused = next(each for each in answers if each["type"] == "error")
        assert (refused["code"], refused["retry_after"] > 0) == ("rate_limited", True)


async def test_welcome_says_when_the_token_ends(here):
    ends, stays = await token_of(here, expires_in=3600), await token_of(here)
    async with connect(f"{here.ws_url}/ws/auth/query?token={ends}") as socket:
        welcome = await receive(socket)
        assert datetime.fromisoformat(welcome.pop("expires")) > datetime.now().astimezone()
        assert welcome == {"type": "welcome", "user": "alice"}
    async with connect(f"{here.ws_url}/ws/auth/query?token={stays}") as socket:
        assert await receive(socket) == {"type": "welcome", "user": "alice"}


async def test_no_connection_is_left_of_an_identity_that_was_given_up(here):
    before = httpx.get(f"{here.url}/tests/inside").json()["watched"]
    one, two = await token_of(here), await token_of(here)
    async with connect(f"{here.ws_url}/ws?token={one}") as socket:
        for token in (two, one, two):
            assert (await ask(socket, renewal(token)))["type"] == "authenticated"
    await eventually(lambda: httpx.get(f"{here.url}/tests/inside").json()["watched"] == before)


async def staff_only(user: Any, topic: str, action: str) -> bool:
    return bool(user.is_staff)


@pytest.mark.django_db(transaction=True)
async def test_right_that_is_lost_while_the_same_token_comes_again_is_lost():
    user = await User.objects.acreate(username="staff", is_staff=True)
    token, _ = await sync_to_async(create_token)(user)
    asked, answers = asyncio.Event(), asyncio.Event()

    async def rates(identity: Identity, action: str) -> None:
        if is_renewing:
            asked.set()
            await answers.wait()

    is_renewing = False
    hooks = {"PERMISSION": staff_only, "RATE_FOR": rates, "BUS": "memory", "RECHECK_SECONDS": 600.0}
    with override_settings(REALTIME=hooks):
        async with testing.websocket(application, "/ws", token=token) as socket:
            await socket.send_json({"type": "subscribe", "topic": "orders"})
            assert (await socket.receive_json())["type"] == "subscribed"
            is_renewing = True
            await socket.send_json(renewal(token))
            await asked.wait()
            user.is_staff = False
            await user.asave()
            assert (await socket.receive_json())["type"] == "unsubscribed"
            answers.set()
            assert (await socket.receive_json())["type"] == "authenticated"
            [[live]] = get_connections().connections.values()
            await eventually(lambda: not live.user.is_staff)
