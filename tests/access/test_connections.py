"""Who may no longer be there is sent away within a second or two, on every worker."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import override_settings
from django.utils import timezone

from realtime.access import connections, users
from realtime.access.authentication import identity_cache
from realtime.access.connections import (
    CHUNK,
    LINGER_SECONDS,
    ConnectionRegistry,
    get_connections,
)
from realtime.access.identity import Identity, digest
from realtime.access.signals import TOPIC
from realtime.delivery.publish import apublish
from realtime.events.event import Event
from realtime.models import AccessToken
from realtime.processes.status import get_status

from ..support.attempts import three_tries_of
from ..support.clients import (
    ask,
    bearer,
    close_code,
    connect,
    eventually,
    open_stream,
    receive,
    session_cookie,
    signed_in,
)
from ..support.clock import InstantLoop
from ..support.hubs import from_elsewhere, stage
from ..support.servers import Valkey, serving
from ..support.sites import SiteShell, shortened, site_for_module

# The round that finds what no signal told of is far off: what happens here happens by the signals.
SHORT = {"RECHECK_SECONDS": 300.0, "KEEPALIVE_SECONDS": 0.3, "HEAD_CHECK_SECONDS": 0.3}
SECONDS = 15.0

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
    "token narrowed": (
        "token = user.realtime_tokens.get(); token.scopes = 'read:room.b'; token.save()",
        4403,
    ),
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
    shell.run(
        f"user = User.objects.create_user({name!r}, password='sesame', is_staff=True)\n"
        "from django.contrib.auth.models import Permission\n"
        "names = ['view_event', 'add_event']\n"
        "user.user_permissions.set(Permission.objects.filter(codename__in=names))"
    )

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


async def test_who_is_disconnected_is_on_every_worker_and_may_come_back(two_workers, user):
    one, two = two_workers.server, two_workers.two
    async with (
        present(one, user.token, "room.a") as here,
        present(two, user.token, "room.a") as there,
        connect(f"{one.ws_url}/ws?token={two_workers.tokens['alice']}") as bystander,
    ):
        await user.change("from realtime.access.signals import disconnect_user as end; end(user)")
        for socket, many, stream in (here, there):
            assert await close_code(socket, SECONDS) == 4401
            assert await close_code(many, SECONDS) == 4401
            await stream.ended(SECONDS)
        await is_alive(bystander)
        async with connect(f"{one.ws_url}/ws?token={user.token}") as again:
            await is_alive(again)


@pytest.mark.parametrize("what", [name for name in CHANGES if name != "password"])
async def test_a_change_reaches_every_socket_on_every_worker(two_workers, user, what):
    code, closed_with = CHANGES[what]
    topic = "secret" if what == "staff flag" else "room.a"
    one, two = two_workers.server, two_workers.two
    async with (
        present(one, user.token, topic) as here,
        present(two, user.token, topic) as there,
        # One on each worker: while somebody is there, the worker keeps the identities it knows.
        connect(f"{one.ws_url}/ws?token={two_workers.tokens['alice']}") as bystander,
        connect(f"{two.ws_url}/ws?token={two_workers.tokens['alice']}") as other,
    ):
        for _, many, _ in (here, there):
            assert (await ask(many, {"type": "subscribe", "topic": topic}))["recovered"]
        await user.change(code)
        for socket, many, stream in (here, there):
            assert await close_code(socket, SECONDS) == closed_with
            await stream.ended(SECONDS)
            if closed_with == 4403:  # this socket may still have other topics
                assert (await receive(many, SECONDS))["type"] == "unsubscribed"
                await is_alive(many)
            else:
                assert await close_code(many, SECONDS) == 4401
        for each, server in ((bystander, one), (other, two)):
            await is_alive(each)
            url, headers = f"{server.url}/topics/{topic}/events", bearer(user.token)
            with httpx.stream("GET", url, headers=headers) as again:
                assert again.status_code == closed_with - 4000


async def test_service_that_is_narrowed_or_revoked_loses_its_topics_on_every_worker(two_workers):
    shell = two_workers.shell
    token = shell.run(
        "result = create_token(None, name='shop', scopes='read:room.a read:room.b')[0]"
    )

    async def change(field: str, value: str) -> None:
        script = "from realtime.models import AccessToken as A; t = A.objects.get(name='shop')\n"
        await asyncio.to_thread(shell.run, f"{script}t.{field} = {value}; t.save()")

    one, two = two_workers.server, two_workers.two
    url = f"/ws/topics/room.a?token={token}"
    async with (
        connect(f"{one.ws_url}{url}") as lost,
        connect(f"{two.ws_url}{url}") as too,
        connect(f"{two.ws_url}/ws?token={token}") as many,
        connect(f"{two.ws_url}/ws/topics/public.a") as anonymous,
    ):
        for topic in ("room.a", "room.b"):
            assert (await ask(many, {"type": "subscribe", "topic": topic}))["recovered"]
        await change("scopes", "'read:room.b'")
        assert await close_code(lost, SECONDS) == await close_code(too, SECONDS) == 4403
        assert (await receive(many, SECONDS))["topic"] == "room.a"
        await is_alive(many)
        await change("revoked", "t.created")
        assert await close_code(many, SECONDS) == 4401
        await is_alive(anonymous)


async def test_what_lives_on_a_token_ends_when_the_token_does(two_workers):
    """The timed check is minutes away."""
    server, lives = two_workers.server, iter((3.0, 6.0, 12.0))
    await asyncio.to_thread(two_workers.shell.run, "pass")  # it has started

    async def attempt() -> None:
        seconds = next(lives)
        begun = time.monotonic()
        token = await asyncio.to_thread(two_workers.shell.make_token, "bob", seconds)
        headers, url = bearer(token), f"{server.url}/progress?steps=100&interval=1"
        async with httpx.AsyncClient(headers=headers) as client:
            ticket = (await client.post(f"{server.url}/realtime/tickets")).json()["ticket"]
        async with (
            present(server, token, "room.a") as (one, many, stream),
            connect(f"{server.ws_url}/ws?ticket={ticket}") as by_ticket,
            open_stream(url, headers=headers) as own,
        ):
            for socket in (one, many, by_ticket):
                await is_alive(socket)
            for socket in (one, many, by_ticket):
                assert await close_code(socket, SECONDS) == 4401
            await stream.ended(SECONDS)
            await own.ended(SECONDS)
            assert seconds <= time.monotonic() - begun < seconds + SECONDS
        url = f"{server.url}/events?topic=room.a&token={token}"
        assert (await asyncio.to_thread(httpx.get, url)).status_code == 401

    await three_tries_of(attempt)  # all is opened before it ends


async def read_away(response: httpx.Response) -> None:
    async for _ in response.aiter_raw():
        pass


async def test_a_change_ends_the_streams_of_a_sites_own_views(two_workers, user):
    server = two_workers.server
    server.expected.append("The user of this stream has been signed out.")
    headers = bearer(user.token)
    async with (
        open_stream(f"{server.url}/progress?steps=100&interval=1", headers=headers) as progress,
        httpx.AsyncClient(headers=headers) as client,
        client.stream("GET", f"{server.url}/firehose?mb=100000") as firehose,
    ):
        await user.change(CHANGES["deactivated"][0])
        await progress.ended(SECONDS)
        with pytest.raises(httpx.RemoteProtocolError):
            await asyncio.wait_for(read_away(firehose), SECONDS)
    answer = await asyncio.to_thread(httpx.get, f"{server.url}/progress", headers=headers)
    assert answer.status_code == 401


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


async def test_a_stalled_connection_does_not_delay_the_closing_of_others(two_workers, user):
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


# -- a look-up that fails


class Live:
    """A connection that notes what it is told."""

    def __init__(self, registry: ConnectionRegistry, number: int) -> None:
        self.identity = Identity(User(pk=number), "token", str(number))
        self.told: list[Identity | str | None] = []
        registry.connections[self.identity] = {self: None}  # without the tasks that `add` begins

    async def recheck(self, identity: Identity | None) -> None:
        self.told.append(identity)

    async def fail(self) -> None:
        self.told.append("failed")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[int, Exception | None]:
    """By user: what the look-up raises, or None for a token that is good no more."""
    found: dict[int, Exception | None] = {}

    def find_identities(identities: Sequence[Identity]) -> list[Identity | None]:
        answers = [found.get(int(each.key), each) for each in identities]
        for error in answers:
            if isinstance(error, Exception):
                raise error
        return answers

    monkeypatch.setattr(users, "find_identities", find_identities)
    return found


@pytest.mark.django_db(transaction=True)
async def test_connection_that_is_checked_again_is_counted_once_and_since_it_began():
    registry = ConnectionRegistry()
    one, two = Live(registry, 1), Live(registry, 2)
    registry.connections.clear()
    before = get_status().connections
    for each in (one, two, one):
        registry.add(each.identity, each)
    began = registry.connections[one.identity][one]
    registry.add(one.identity, one)
    assert registry.connections[one.identity] == {one: began}
    assert get_status().connections == before + 2
    for each in (one, one, two):
        registry.discard(each.identity, each)
    assert get_status().connections == before


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", [ValueError("odd"), OperationalError("not text")], ids=repr)
async def test_failing_look_up_ends_its_own_connection_alone(answers, error, caplog):
    registry = ConnectionRegistry()
    everybody = [Live(registry, number) for number in range(1, CHUNK + 6)]
    answers[3], answers[5] = error, None
    await registry.check()
    await eventually(lambda: all(each.told for each in everybody))
    for number, each in enumerate(everybody, 1):
        expected = {3: "failed", 5: None}.get(number, each.identity)
        assert each.told == [expected], number
    assert "could not be checked again" in caplog.text


@pytest.mark.django_db(transaction=True)
async def test_database_that_does_not_answer_ends_no_connection(answers, monkeypatch):
    def fails(*args: object) -> Any:
        raise OperationalError("the connection is closed")

    registry = ConnectionRegistry()
    each = Live(registry, 1)
    answers[1] = OperationalError("the connection is closed")
    with monkeypatch.context() as patch:
        patch.setattr(AccessToken.objects, "exists", fails)
        with pytest.raises(OperationalError):
            await registry.check()
    assert each.told == []
    del answers[1]
    await registry.check()
    await eventually(lambda: each.told == [each.identity])


@pytest.mark.django_db(transaction=True)
@override_settings(REALTIME={"RECHECK_SECONDS": 1_000})
async def test_change_that_came_while_the_database_did_not_answer_is_made_up_for(
    answers, monkeypatch
):
    """The announcement has come and gone; the round of `_sweep` is far off."""
    registry = get_connections()
    each = Live(registry, 1)
    registry.add(each.identity, each)
    await eventually(lambda: each.told == [each.identity])  # all are checked at the beginning
    answers[1] = None
    failing = iter([True])
    refresh = connections.refresh

    async def refresh_failing_once(identities: list[Identity]) -> Any:
        if next(failing, False):
            raise OperationalError("the connection is closed")
        return await refresh(identities)

    monkeypatch.setattr(connections, "refresh", refresh_failing_once)
    try:
        await apublish(TOPIC, {"user": "1"}, ephemeral=True)
        await eventually(lambda: each.told == [each.identity, None])
    finally:
        registry.discard(each.identity, each)


# -- without sockets, on a clock that does not wait


class Reader:
    """A connection, and what it was told."""

    def __init__(
        self,
        registry: ConnectionRegistry,
        key: str,
        user: int = 1,
        source: Any = "token",
        expires: datetime | None = None,
    ) -> None:
        self.identity = Identity(User(pk=user), source, key, expires)
        self.checks: list[Identity | None] = []
        self.is_broken = False
        self.failures = 0
        registry.add(self.identity, self)

    async def recheck(self, identity: Identity | None) -> None:
        if self.is_broken:
            raise RuntimeError("broken on purpose")
        self.checks.append(identity)

    async def fail(self) -> None:
        self.failures += 1


class LookUps:
    """Stands for the database: when which identities were looked up."""

    def __init__(self) -> None:
        self.is_failing = self.is_nobody_known = False
        self.gate: asyncio.Event | None = None
        self.took = 0.0
        self.made: list[tuple[float, list[str]]] = []

    @property
    def keys(self) -> list[list[str]]:
        return [keys for _, keys in self.made]

    async def __call__(self, chunk: list[Identity]) -> Sequence[Identity | None]:
        found: Sequence[Identity | None] = [None] * len(chunk) if self.is_nobody_known else chunk
        self.made.append((asyncio.get_running_loop().time(), [each.key for each in chunk]))
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(self.took)
        if self.is_failing:
            raise OSError("no database, on purpose")
        return found


@pytest.fixture
def look_ups(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> LookUps:
    found = LookUps()
    monkeypatch.setattr(connections, "refresh", found)
    monkeypatch.setattr(identity_cache, "_refused", {})
    caplog.set_level("CRITICAL", "realtime")
    return found


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[set[str] | None]:
    """The users whose identities the cache was told to forget; None: all of them."""
    told: list[set[str] | None] = []

    def forget(is_stale: Callable[[Identity], bool] | None = None) -> None:
        users = [Identity(User(pk=number), "token") for number in (1, 2)]
        told.append(is_stale and {str(each.user.pk) for each in users if is_stale(each)})

    monkeypatch.setattr(identity_cache, "forget", forget)
    return told


Main = Callable[[ConnectionRegistry, Any, Any], Coroutine[Any, Any, None]]


def watching(main: Main, **constants: Any) -> None:
    """Run `main(registry, layer, log)`; whoever is still there at its end leaves."""

    async def run(layer: Any, log: Any) -> None:
        registry = get_connections()
        await main(registry, layer, log)
        for identity, found in list(registry.connections.items()):
            for connection in list(found):
                registry.discard(identity, connection)
        await asyncio.sleep(10)

    constants = {"RECHECK_SECONDS": 1000.0, "HEAD_CHECK_SECONDS": 1.0, **constants}
    with (
        stage(**constants) as (layer, log),
        asyncio.Runner(loop_factory=InstantLoop) as runner,
    ):
        runner.run(run(layer, log))


async def say(layer: Any, *changes: str) -> None:
    for change in changes:
        await layer.group_send(TOPIC, from_elsewhere(Event(TOPIC, "message", change)))


def test_registry_checks_what_changed_before_it_listened(look_ups):
    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        live = Reader(registry, "a")
        await asyncio.sleep(1)
        assert look_ups.keys == [["a"]]
        assert live.checks == [live.identity]

    watching(main)


def test_registry_is_trusted_only_while_it_listens(look_ups, forgotten):
    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        log.failing = True
        live = Reader(registry, "a")
        await asyncio.sleep(5)
        assert not identity_cache.is_trusted
        log.failing = False
        await eventually(lambda: identity_cache.is_trusted)  # an error does not end the listening
        registry.discard(live.identity, live)
        await asyncio.sleep(LINGER_SECONDS - 1)
        again = Reader(registry, "a")
        await asyncio.sleep(LINGER_SECONDS)
        registry.discard(again.identity, again)
        await asyncio.sleep(LINGER_SECONDS - 1)
        assert identity_cache.is_trusted
        assert forgotten == [None]
        assert look_ups.keys == [["a"]]  # when it began to listen
        await asyncio.sleep(2)
        assert not identity_cache.is_trusted
        assert forgotten == [None] * 2
        assert asyncio.all_tasks() == {asyncio.current_task()}

    watching(main)


def test_registry_forgets_and_checks_only_users_that_changed(look_ups, forgotten):
    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        one, other = Reader(registry, "a", user=1), Reader(registry, "b", user=2)
        await asyncio.sleep(1)
        forgotten.clear()
        # Staff may publish anything there.
        await say(layer, "1", "[2]", '"user"', '{"else": 1}', '{"user": "2"}')
        await asyncio.sleep(1)
        assert forgotten == [{"2"}]
        assert (len(one.checks), len(other.checks)) == (1, 2)

    watching(main)


@pytest.mark.parametrize("change", ['{"user": "1"}', '{"token": "a"}'])
def test_connection_whose_user_was_looked_up_before_a_change_is_checked_at_once(look_ups, change):
    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        Reader(registry, "b", user=2)
        await asyncio.sleep(1)
        await say(layer, change)
        await asyncio.sleep(1)
        late, other = Reader(registry, "a", user=1), Reader(registry, "c", user=3)
        await asyncio.sleep(1)
        assert (late.checks, other.checks) == ([late.identity], [])
        registry.add(late.identity, late)  # as when it is checked again
        await asyncio.sleep(1)
        assert len(late.checks) == 1
        await asyncio.sleep(100)  # since which nobody is looked up any more
        assert registry._changed == {}

    watching(main, RECHECK_SECONDS=60.0)


@pytest.mark.parametrize("is_missed", [False, True])
def test_look_up_that_is_overtaken_by_that_for_a_change_says_nothing(look_ups, is_missed):
    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        live, other = Reader(registry, "a"), Reader(registry, "b", user=2)
        await asyncio.sleep(1)
        look_ups.gate = overtaken = asyncio.Event()
        await asyncio.sleep(30)  # and the round's look-up goes on
        look_ups.gate = later = asyncio.Event()
        if is_missed:
            await say(layer, '{"user": "2"}')
            await asyncio.sleep(1)
            await say(layer, *['{"user": "2"}'] * 9)  # more than are kept
        look_ups.is_nobody_known = True
        await say(layer, '{"user": "1"}')
        await asyncio.sleep(1)
        later.set()
        await asyncio.sleep(1)
        assert (live.checks, other.checks[-1]) == (
            [live.identity, None],
            None if is_missed else other.identity,
        )
        overtaken.set()
        await asyncio.sleep(1)
        assert live.checks == [live.identity, None]
        assert len(other.checks) == (3 if is_missed else 2), "of nobody else it is outdated"

    watching(main, RECHECK_SECONDS=50.0, EPHEMERAL_QUEUE=3)


def test_look_up_for_a_new_connection_is_overtaken_too(look_ups):
    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        Reader(registry, "b", user=2)
        await asyncio.sleep(1)
        await say(layer, '{"user": "1"}')
        await asyncio.sleep(1)
        look_ups.gate = overtaken = asyncio.Event()
        late = Reader(registry, "a", user=1)
        await asyncio.sleep(1)
        look_ups.gate, look_ups.is_nobody_known = None, True
        await say(layer, '{"user": "1"}')
        await asyncio.sleep(1)
        overtaken.set()
        await asyncio.sleep(1)
        assert late.checks == [None]

    watching(main)


def test_connection_of_a_session_that_has_just_ended_is_ended(look_ups):
    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        Reader(registry, "other", source="session")
        await asyncio.sleep(1)
        await say(layer, f'{{"session": "{digest("late")}"}}')
        await asyncio.sleep(1)
        late = Reader(registry, "late", source="session")
        await asyncio.sleep(0.1)
        assert late.checks == [None]

    watching(main)


def test_registry_checks_everybody_after_more_changes_than_are_kept(look_ups, forgotten):
    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        one, other = Reader(registry, "a", user=1), Reader(registry, "b", user=2)
        look_ups.gate = asyncio.Event()
        await asyncio.sleep(1)  # and the first look-up goes on
        forgotten.clear()
        await say(layer, '{"user": "1"}', *['{"user": "2"}'] * 5)
        await asyncio.sleep(1)
        assert forgotten == []
        look_ups.gate.set()
        await asyncio.sleep(1)
        assert forgotten == [None]
        assert (len(one.checks), len(other.checks)) == (2, 2)
        await say(layer, '{"user": "1"}')
        await asyncio.sleep(1)
        assert forgotten == [None, {"1"}]
        assert (len(one.checks), len(other.checks)) == (3, 2)

    watching(main, EPHEMERAL_QUEUE=3)


def test_registry_ends_a_session_that_can_still_be_found(look_ups):
    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        ended, ticket = (
            Reader(registry, "mine", source="session"),
            Reader(registry, "session:mine", source="ticket"),
        )
        other = Reader(registry, "other", source="session")
        await asyncio.sleep(1)
        await say(layer, f'{{"session": "{digest("mine")}"}}')
        await asyncio.sleep(1)
        assert [ended.checks[1:], ticket.checks[1:], other.checks[1:]] == [[None], [None], []]
        assert identity_cache.is_refused(("session", digest("mine")))

    watching(main)


def test_registry_closes_all_sessions_of_a_user_who_may_come_back(look_ups):
    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        ended, ticket = (
            Reader(registry, "signed", source="session"),
            Reader(registry, "session:signed", source="ticket"),
        )
        token, other = Reader(registry, "a"), Reader(registry, "b", user=2, source="session")
        await asyncio.sleep(1)
        await say(layer, '{"sessions_of": "1"}')
        await asyncio.sleep(1)
        assert [each.failures for each in (ended, ticket, token, other)] == [1, 1, 0, 0]

    watching(main)


def test_timed_recheck_outlives_a_database_that_fails(look_ups):
    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        live = Reader(registry, "a")
        await asyncio.sleep(1)
        look_ups.is_failing = True
        await asyncio.sleep(35)
        assert len(look_ups.made) > 3
        look_ups.is_failing = False
        await asyncio.sleep(10)
        assert live.checks == [live.identity] * 2

    watching(main, RECHECK_SECONDS=10.0)


@pytest.mark.parametrize("took", [0, 5])
def test_timed_recheck_is_spread_over_its_second_half(look_ups, took):
    """However long the look-ups take."""

    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        for number in range(CHUNK * 4):
            Reader(registry, str(number))
        look_ups.took = took
        await asyncio.sleep(49)
        del look_ups.made[:]
        await asyncio.sleep(199)
        times = [time for time, _ in look_ups.made]
        rounds = [50, 62.5, 75, 87.5, 150, 162.5, 175, 187.5]
        assert times == [pytest.approx(each, abs=1) for each in rounds]
        assert [len(keys) for keys in look_ups.keys] == [CHUNK] * 8

    watching(main, RECHECK_SECONDS=100.0)


def test_connection_that_cannot_be_checked_is_closed(look_ups):
    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        broken, sound = Reader(registry, "a"), Reader(registry, "b")
        broken.is_broken = True
        await asyncio.sleep(1)
        assert (broken.failures, sound.failures) == (1, 0)
        assert sound.checks == [sound.identity]

    watching(main)


def test_token_is_checked_when_it_ends_and_not_before(look_ups):
    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        end = timezone.now() + timedelta(seconds=100)
        live = [Reader(registry, "a", expires=end), Reader(registry, "a", expires=end)]
        other = Reader(registry, "b", expires=end + timedelta(seconds=500))
        await asyncio.sleep(95)
        assert [len(each.checks) for each in (*live, other)] == [1, 1, 1]
        await asyncio.sleep(10)
        assert [len(each.checks) for each in (*live, other)] == [2, 2, 1]

    watching(main)


def test_end_that_comes_nearer_counts_and_that_of_a_connection_that_left_does_not(look_ups):
    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        far = timezone.now() + timedelta(seconds=500)
        live, left = Reader(registry, "a", expires=far), Reader(registry, "b", expires=far)
        registry.discard(left.identity, left)
        await asyncio.sleep(1)
        sooner = Reader(registry, "a", expires=far - timedelta(seconds=450))
        del look_ups.made[:]
        await asyncio.sleep(60)
        assert look_ups.keys == [["a"]]
        assert (len(live.checks), len(sooner.checks)) == (2, 1)
        registry.discard(sooner.identity, sooner)
        registry.discard(live.identity, live)
        await asyncio.sleep(1000)
        assert look_ups.keys == [["a"]]

    watching(main)


def test_token_that_has_ended_goes_no_further_while_the_database_fails(look_ups):
    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        end = timezone.now() + timedelta(seconds=100)
        ended, other = Reader(registry, "a", expires=end), Reader(registry, "b")
        await asyncio.sleep(1)
        look_ups.is_failing = True
        await asyncio.sleep(110)
        assert (ended.failures, other.failures) == (1, 0)

    watching(main)


def test_connection_that_left_is_told_nothing(look_ups):
    async def main(registry: ConnectionRegistry, layer: Any, log: Any) -> None:
        left = Reader(registry, "a")
        stays = Reader(registry, "b")
        look_ups.gate = asyncio.Event()
        await asyncio.sleep(1)
        look_ups.gate.set()
        await eventually(lambda: stays.checks)
        registry._tell(left.identity, None)
        registry.discard(left.identity, left)
        await asyncio.sleep(1)
        assert left.checks == [left.identity]

    watching(main)
