"""Who may no longer be there is sent away within a second or two, on every worker."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from ..support.clients import (
    SiteShell,
    ask,
    bearer,
    close_code,
    connect,
    open_stream,
    receive,
    session_cookie,
    shortened,
    signed_in,
    site_for_module,
)
from ..support.servers import Valkey, serving

# The round that finds what no signal told of is far off: what happens here happens by the signals.
SHORT = {"RECHECK_SECONDS": 300.0, "KEEPALIVE_SECONDS": 0.3, "HEAD_CHECK_SECONDS": 0.3}
SECONDS = 3.0

CHANGES = {
    "deactivated": ("user.is_active = False; user.save()", 4401),
    "deleted": ("user.delete()", 4401),
    "password": ("user.set_password('other'); user.save()", None),
    "token revoked": (
        "from django.utils import timezone; token = user.realtime_tokens.get(); "
        "token.revoked = timezone.now(); token.save()",
        4401,
    ),
    "token deleted": ("user.realtime_tokens.get().delete()", 4401),
    "staff flag": ("user.is_staff = user.is_superuser = False; user.save()", 4403),
}


async def is_alive(socket: Any) -> None:
    assert await ask(socket, {"type": "ping"}) == {"type": "pong"}


@pytest.fixture(scope="module")
def two_workers(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    """Two servers of one site behind one Valkey: what happens in one reaches the other."""
    redis = Valkey()
    with (
        site_for_module(_site_template, SHORT, REDIS_URL=redis.url) as site,
        serving(site.env) as two,
    ):
        site.two = two
        yield site
    redis.stop()


@pytest.fixture
def user(two_workers: SimpleNamespace) -> SimpleNamespace:
    """A new staff user, and a way to change it in a process that serves nobody."""
    name = f"user-{uuid.uuid4().hex[:8]}"
    shell = two_workers.shell
    shell.run(f"User.objects.create_user({name!r}, password='sesame', is_staff=True)")

    async def change(code: str) -> None:
        script = f"user = User.objects.get(username={name!r})\n{code}"
        await asyncio.to_thread(shell.run, script)

    return SimpleNamespace(name=name, token=shell.make_token(name), change=change)


@asynccontextmanager
async def present(server: Any, token: str, topic: str) -> AsyncIterator[list[Any]]:
    """A user on all kinds of sockets and streams of a server."""
    async with AsyncExitStack() as stack:
        one = f"{server.ws_url}/ws/topics/{topic}?token={token}"
        many = await stack.enter_async_context(connect(f"{server.ws_url}/ws?token={token}"))
        yield [
            await stack.enter_async_context(connect(one)),
            many,
            await stack.enter_async_context(
                open_stream(f"{server.url}/topics/{topic}/events", headers=bearer(token))
            ),
        ]


@pytest.mark.parametrize("what", [name for name in CHANGES if name != "password"])
async def test_a_change_reaches_every_socket_on_every_worker(two_workers, user, what):
    code, closed_with = CHANGES[what]
    topic = "secret" if what == "staff flag" else "room.a"
    one, two = two_workers.server, two_workers.two
    async with (
        present(one, user.token, topic) as here,
        present(two, user.token, topic) as there,
        connect(f"{one.ws_url}/ws?token={two_workers.tokens['alice']}") as bystander,
    ):
        for _, many, _ in (here, there):
            assert (await ask(many, {"type": "subscribe", "topic": topic}))["recovered"]
        await user.change(code)
        for socket, many, stream in (here, there):
            assert await close_code(socket, SECONDS) == closed_with
            await stream.ended(SECONDS)
            if what == "staff flag":  # this socket may still have other topics
                assert (await receive(many, SECONDS))["type"] == "unsubscribed"
                await is_alive(many)
            else:
                assert await close_code(many, SECONDS) == 4401
        await is_alive(bystander)
    again = httpx.get(f"{two.url}/topics/{topic}/events", headers=bearer(user.token))
    assert again.status_code == (403 if what == "staff flag" else 401)


async def test_a_sign_out_ends_that_session_s_sockets_only(two_workers):
    one, two = two_workers.server, two_workers.two
    url = f"{two.ws_url}/ws/topics/room.a"
    # Django tells of the sign-out before it deletes the session: more than one attempt.
    for _ in range(5):
        with signed_in(one, "alice") as client:
            leaving = {"Cookie": f"sessionid={client.cookies['sessionid']}"}
            staying = await asyncio.to_thread(session_cookie, one, "alice")
            async with (
                connect(url, additional_headers=leaving) as out,
                connect(url, additional_headers=staying) as still,
                open_stream(f"{one.url}/topics/room.a/events", headers=leaving) as stream,
            ):
                await is_alive(out)
                answer = await asyncio.to_thread(client.post, "/logout/")
                assert answer.status_code == 302
                assert await close_code(out, SECONDS) == 4401
                await stream.ended(SECONDS)
                await is_alive(still)
            again = httpx.get(f"{two.url}/topics/room.a/events", headers=leaving)
            assert again.status_code == 401


async def test_a_new_password_ends_sessions(two_workers, user):
    cookie = await asyncio.to_thread(session_cookie, two_workers, user.name)
    url = f"{two_workers.two.ws_url}/ws/topics/room.a"
    async with connect(url, additional_headers=cookie) as socket:
        await is_alive(socket)
        await user.change(CHANGES["password"][0])
        assert await close_code(socket, SECONDS) == 4401


async def test_one_who_does_not_read_keeps_nobody_else_there(two_workers, user):
    server, token = two_workers.server, user.token
    mine = two_workers.shell.make_token("bob")
    async with (
        connect(f"{server.ws_url}/ws?token={token}", max_queue=1, close_timeout=0.1) as deaf,
        connect(f"{server.ws_url}/ws/topics/room.a?token={mine}") as socket,
        httpx.AsyncClient(headers=bearer(token)) as client,
    ):
        assert (await ask(deaf, {"type": "subscribe", "topic": "secret"}))["recovered"]
        for _ in range(200):  # more than the kernel keeps for one who does not read
            url = f"{server.url}/topics/secret/events"
            assert (await client.post(url, json="x" * 60_000)).status_code == 201
        await user.change(CHANGES["staff flag"][0])
        await asyncio.to_thread(
            two_workers.shell.run,
            "for each in User.objects.get(username='bob').realtime_tokens.all(): each.delete()",
        )
        assert await close_code(socket, SECONDS) == 4401
        deaf.transport.abort()


async def test_the_round_finds_what_no_signal_tells_of(site):
    with (
        serving(shortened(site, {**SHORT, "RECHECK_SECONDS": 0.5})) as server,
        closing(SiteShell(site)) as shell,
    ):
        mine = await asyncio.to_thread(shell.make_token, "bob")
        async with connect(f"{server.ws_url}/ws/topics/room.a?token={mine}") as socket:
            await is_alive(socket)
            quietly = "User.objects.filter(username='bob').update(is_active=False)"
            await asyncio.to_thread(shell.run, quietly)
            assert await close_code(socket, SECONDS) == 4401
