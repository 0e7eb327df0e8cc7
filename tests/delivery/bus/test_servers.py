"""One suite for every bus with a server of its own, over that server, which fails in all ways."""

import asyncio
import base64
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar
from unittest.mock import patch

import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test import override_settings
from psycopg.conninfo import conninfo_to_dict

from realtime.delivery.bus.base import MISSED
from realtime.delivery.bus.connected import ConnectedBus
from realtime.delivery.bus.envelope import encode
from realtime.delivery.bus.nats import NatsBus, to_subject
from realtime.delivery.bus.postgres import PostgresBus, channel_of
from realtime.delivery.bus.redis import RedisBus
from realtime.delivery.bus.redis_servers import to_channel
from realtime.events.event import Event

from ...chaos.proxy import Proxy
from ...support.attempts import three_tries_of
from ...support.bus_servers import NATS_BINARY, NO_NATS, NatsServer, Program, ValkeyNode
from ...support.buses import (
    LOGGER,
    QUICK,
    counted_turns,
    cursor,
    listening,
    send,
    tell_processes_apart,
)
from ...support.databases import ON_POSTGRESQL, postgresql_uri
from ...support.hubs import turns

T = TypeVar("T")
TOPICS = [
    *("room.a", "user.1.x", "a", "..", "a.*.>", "* >", "{a}{b}", "a b\r\nPING", "ž"),
    'a"; LISTEN x; --',
]


class Backend:
    """A bus, its server, and how others send on it."""

    kind: type[ConnectedBus]
    server: Any
    settings: dict[str, Any]
    sends_elsewhere = False
    """Whether a process that does not listen sends by a way of its own."""
    garbage = (b"", b"{}", b"\xff" * 100)
    flood = 1_000

    def __init__(self, kind: type[ConnectedBus], server: Program, setting: str) -> None:
        self.kind = kind
        self.server = server
        self.settings = {setting: server.url, **QUICK}

    def forge(self, message: bytes) -> bytes:
        """How a message is on the wire."""
        return message

    async def send_raw(self, topic: str, *payloads: bytes) -> None:
        """What anybody can send that reaches the server."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        for data in payloads:
            if self.kind is NatsBus:
                writer.write(f"PUB {to_subject(topic)} {len(data)}\r\n".encode() + data + b"\r\n")
            else:
                channel = to_channel(topic).encode()
                words = [b"PUBLISH", channel, data]
                lines = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
                writer.write(b"*3\r\n" + b"".join(lines))
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.close()


class ProxiedPostgres:
    """The database of the tests, as it is to a bus that listens through a proxy."""

    def __init__(self) -> None:
        where = conninfo_to_dict(postgresql_uri())
        path = f"{where['host']}/.s.PGSQL.{where.get('port', 5432)}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._proxy = self._run(Proxy(lambda: asyncio.open_unix_connection(path)).__aenter__())
        name = connection.settings_dict["NAME"]
        self.url = f"postgresql://{where['user']}@127.0.0.1:{self._proxy.port}/{name}"

    def kill(self) -> None:
        self._call(self._proxy.refuse)

    def suspend(self) -> None:
        self._call(self._proxy.freeze)

    def start(self) -> None:
        self._call(self._proxy.heal)

    resume = start

    def stop(self) -> None:
        self._run(self._proxy.__aexit__())
        self._call(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _call(self, function: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(function)


class PostgresBackend(Backend):
    """What is sent is text in base64; a process that does not listen sends as Django connects."""

    sends_elsewhere = True
    garbage = (b"", b"{}", "ž".encode(), b"=", b"a", b"1" * 7_999, base64.b64encode(bytes(100)))
    flood = 3_000  # which have to be different: the server drops what is there already

    def __init__(self) -> None:
        self.kind = PostgresBus
        self.server = ProxiedPostgres()
        self.settings = {"NOTIFY_DATABASE_URL": self.server.url, **QUICK}

    def forge(self, message: bytes) -> bytes:
        return base64.b64encode(message)

    async def send_raw(self, topic: str, *payloads: bytes) -> None:
        def execute() -> None:
            where = conninfo_to_dict(postgresql_uri())
            where |= {"dbname": connection.settings_dict["NAME"]}
            with psycopg.connect(**where) as other, other.cursor() as cursor:
                notify = "SELECT pg_notify(%s, %s)"
                cursor.executemany(notify, [(channel_of(topic), p.decode()) for p in payloads])

        await asyncio.to_thread(execute)


@pytest.fixture(scope="module", params=["nats", "redis", "postgres"])
def started(request) -> Iterator[Backend]:
    if request.param == "nats":
        if NATS_BINARY is None:
            pytest.skip(NO_NATS)
        made = Backend(NatsBus, NatsServer(), "NATS_URL")
    elif request.param == "redis":
        made = Backend(RedisBus, ValkeyNode(), "REDIS_BUS_URL")
    else:
        if not ON_POSTGRESQL:
            pytest.skip("a bus over PostgreSQL")
        request.getfixturevalue("django_db_setup")
        made = PostgresBackend()
    yield made
    made.server.stop()


@pytest.fixture
def backend(request, started: Backend, monkeypatch: pytest.MonkeyPatch) -> Backend:
    if started.sends_elsewhere:
        request.getfixturevalue("transactional_db")
    tell_processes_apart(monkeypatch)
    return started


async def test_what_is_sent_is_heard_on_its_topic_alone(backend):
    async with listening(backend.kind, backend.settings, *TOPICS) as (bus, heard):
        elsewhere = backend.kind(LOGGER)
        for topic in TOPICS:
            assert await send(elsewhere, cursor(topic))
            assert await heard.get() == (topic, [cursor(topic)])
        assert await send(elsewhere, cursor("room.b"))
        assert await bus.send("room.a", [cursor("room.a")])  # one's own is not heard
        bus.leave(TOPICS[1:])
        await bus.settled()
        for topic in TOPICS[1:]:
            assert await send(elsewhere, cursor(topic))
        logged = Event("room.a", "message", '{"a":"ž"}', "abcd1234", 2**63 - 1, '{"sender":1}')
        assert await send(elsewhere, logged)
        assert await heard.get() == ("room.a", [logged])
        assert heard.empty()


async def test_a_topic_that_is_left_and_joined_is_joined_anew(backend):
    async with listening(backend.kind, backend.settings, "room.a") as (bus, heard):
        bus.join(["room.a"])  # nothing to do
        await bus.settled()
        assert heard.empty()
        bus.leave(["room.a"])
        bus.join(["room.a"])
        await bus.settled()
        assert await heard.get() == ("room.a", MISSED)
        assert await send(backend.kind(LOGGER), cursor("room.a"))
        assert await heard.get() == ("room.a", [cursor("room.a")])


async def test_a_server_that_is_killed_and_comes_back_costs_what_was_sent_meanwhile(
    backend, caplog
):
    async with listening(backend.kind, backend.settings, "room.a", "room.b") as (bus, heard):
        elsewhere = backend.kind(LOGGER)
        assert await send(elsewhere, cursor("room.a"))
        assert await heard.get() == ("room.a", [cursor("room.a")])
        backend.server.kill()
        while not bus.is_down:
            await asyncio.sleep(0.01)
        assert not await bus.send("room.a", [cursor("room.a")])
        assert await send(elsewhere, cursor("room.a")) is backend.sends_elsewhere
        bus.join(["room.c"])
        await bus.settled()  # for now
        await asyncio.to_thread(backend.server.start)
        missed = [(f"room.{name}", MISSED) for name in "abc"]
        assert sorted([await heard.get() for _ in missed]) == missed
        assert await send(elsewhere, cursor("room.c"))
        assert await heard.get() == ("room.c", [cursor("room.c")])
        assert not bus.is_down
    said = [record.getMessage() for record in caplog.records if record.name == "realtime.hub"]
    assert len([line for line in said if "has no connection" in line]) == 1
    other = [line for line in said if "takes no announcements" in line]
    assert len(other) == (not backend.sends_elsewhere)


async def test_a_silent_server_is_noticed_and_not_waited_for(backend):
    quick = {**backend.settings, "ANNOUNCE_TIMEOUT_SECONDS": 1.0}

    async def notice() -> None:
        async with listening(backend.kind, quick, "room.a") as (bus, heard):
            elsewhere = backend.kind(LOGGER)
            assert await send(elsewhere, cursor("room.a"))
            assert await heard.get() == ("room.a", [cursor("room.a")])
            backend.server.suspend()
            try:
                while not bus.is_down:
                    # Among all that can't be sent: nothing waits for it to be taken.
                    await bus.send("room.a", [cursor("room.a", "1" * 60_000)])
                while bus._joined:  # it has given the connection up
                    await asyncio.sleep(0.01)
                assert await send(elsewhere, cursor("room.a")) is backend.sends_elsewhere
            finally:
                backend.server.resume()
            assert await heard.get() == ("room.a", MISSED)
            assert await send(elsewhere, cursor("room.a"))
            while await heard.get() != ("room.a", [cursor("room.a")]):
                pass

    await three_tries_of(notice)


async def test_to_stop_waits_for_no_server_that_hangs(backend):
    try:
        async with listening(backend.kind, backend.settings, "room.a"):
            backend.server.suspend()
    finally:
        backend.server.resume()


@pytest.mark.parametrize("count", range(1, 7))
async def test_what_a_cancellation_has_left_open_is_closed(backend, count):
    """The server is silent, and the last reader leaves while the connection is given up."""
    tasks, files = asyncio.all_tasks(), open_files()
    with override_settings(REALTIME=backend.settings):
        bus = backend.kind(LOGGER)
        bus.start(lambda topic, message: None)
        bus.join(["room.a"])
        await bus.settled()
        backend.server.suspend()
        try:
            bus._is_due.set()
            await turns()  # it asks whether the server is there
            bus._running.cancel()
            await turns(count)
            await bus.stop()
        finally:
            backend.server.resume()
    async with asyncio.timeout(5):
        while open_files() > files or asyncio.all_tasks() != tasks:
            await asyncio.sleep(0.01)


async def test_what_is_stopped_before_it_has_begun_has_sent_nothing(backend):
    with override_settings(REALTIME=backend.settings):
        bus = backend.kind(LOGGER)
        bus.start(lambda topic, message: None)
        assert not await bus.send("room.a", [cursor("room.a")])
        assert isinstance(bus.failure, ConnectionError)
        await bus.stop()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_what_does_not_authenticate_is_dropped(backend, caplog):
    async with listening(backend.kind, backend.settings, "room.a") as (bus, heard):
        with override_settings(SECRET_KEY="another"):
            forged = backend.forge(encode("room.a", [cursor("room.a")], 5_000))
        await backend.send_raw("room.a", forged, forged[:-1], *backend.garbage)
        assert await send(backend.kind(LOGGER), cursor("room.a"))
        assert await heard.get() == ("room.a", [cursor("room.a")])
        assert bus.dropped.count == 2 + len(backend.garbage)
        assert not bus.is_down
    assert caplog.text.count("not encrypted with a key of this site") == 1


async def test_a_flood_keeps_the_loop_from_nothing(backend):
    async with listening(backend.kind, backend.settings, "room.a") as (bus, heard):
        with patch.object(bus.dropped, "_logger"), counted_turns() as turns:
            await backend.send_raw("room.a", *(b"%0200d" % n for n in range(backend.flood)))
            while bus.dropped.count < backend.flood:
                await asyncio.sleep(0.01)
        assert next(turns) > 100
        assert await send(backend.kind(LOGGER), cursor("room.a"))
        assert await heard.get() == ("room.a", [cursor("room.a")])


def test_what_only_sends_does_so_from_any_loop(backend):
    """From threads that have none, again and again, and from several at once."""
    with override_settings(REALTIME=backend.settings):
        sent: list[bool] = []

        def from_thread() -> None:
            for _ in range(3):
                bus = backend.kind(LOGGER)
                sent.append(async_to_sync(bus.send)("room.a", [cursor("room.a")]))

        threads = [threading.Thread(target=from_thread) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sent == [True] * 9

        async def at_once() -> None:
            bus = backend.kind(LOGGER)
            calls = (bus.send("room.a", [cursor("room.a")]) for _ in range(20))
            assert all(await asyncio.gather(*calls))

        asyncio.run(at_once())
