"""`realtime.delivery.bus.postgres`: what is NOTIFY's own; test_servers has what all buses do."""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from unittest.mock import AsyncMock, patch

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connection
from django.test import override_settings
from psycopg.conninfo import conninfo_to_dict

from realtime.delivery.bus.base import MISSED
from realtime.delivery.bus.envelope import encode
from realtime.delivery.bus.postgres import (
    CHANNELS,
    MAX_BYTES,
    PostgresBus,
    PostgresConnection,
    channel_of,
)
from realtime.events.event import Event
from realtime.processes.registry import this_process
from realtime.testing import event_stream

from ...chaos.proxy import Proxy
from ...support.asgi import application
from ...support.buses import LOGGER, QUICK, Heard, cursor, tell_processes_apart
from ...support.buses import listening as listening_bus
from ...support.databases import ON_POSTGRESQL, postgresql_uri
from ...test_checks import ids, run

pytestmark = [
    pytest.mark.skipif(not ON_POSTGRESQL, reason="a bus over PostgreSQL"),
    pytest.mark.django_db(transaction=True),
]
TOPICS = ["room.a", "user.1.x", "..", "a.*.>", "{a}{b}", "ž", 'a"; LISTEN x; --']
LOGGED = Event("room.a", "message", '{"a":"ž"}', "abcd1234", 2**63 - 1, '{"sender":1}')


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch):
    tell_processes_apart(monkeypatch)


async def send(*events: Event, bus: PostgresBus | None = None) -> bool:
    sender = bus or PostgresBus(LOGGER)
    return await asyncio.create_task(sender.send(events[0].topic, events), name="elsewhere")


async def notify(*payloads: str, topic: str = "room.a") -> None:
    """What anybody can send who has a connection to the database."""

    def execute() -> None:
        where = conninfo_to_dict(postgresql_uri()) | {"dbname": connection.settings_dict["NAME"]}
        with psycopg.connect(**where) as other, other.cursor() as cursor:
            cursor.executemany(
                "SELECT pg_notify(%s, %s)", [(channel_of(topic), each) for each in payloads]
            )

    await asyncio.to_thread(execute)


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Proxy, dict[str, Any]]]:
    """The database through a proxy; settings that have the bus use it, and notice silence."""
    where = conninfo_to_dict(postgresql_uri())
    path = f"{where['host']}/.s.PGSQL.{where.get('port', 5432)}"
    async with Proxy(lambda: asyncio.open_unix_connection(path)) as proxy:
        name = connection.settings_dict["NAME"]
        url = f"postgresql://{where['user']}@127.0.0.1:{proxy.port}/{name}"
        yield proxy, {"NOTIFY_DATABASE_URL": url, "ANNOUNCE_TIMEOUT_SECONDS": 2.0}


def listening(*topics: str, **settings: Any) -> AbstractAsyncContextManager[tuple[Any, Heard]]:
    return listening_bus(PostgresBus, settings, *topics)


async def test_topics_of_one_channel_are_told_apart():
    async with listening("room.a") as (_, heard):
        beside = next(
            f"room.{number}"
            for number in range(10_000)
            if channel_of(f"room.{number}") == channel_of("room.a")
        )
        assert await send(cursor(beside))
        assert await send(cursor("room.a"))
        assert await heard.get() == ("room.a", [cursor("room.a")])
        assert heard.empty()


async def publish_by_sql(topic: str, *, announce: bool) -> str:
    def execute() -> str:
        with connection.cursor() as cursor:
            call = "SELECT realtime_publish(%s, '1', announce => %s)"
            cursor.execute(call, [topic, announce])
            return str(cursor.fetchone()[0])

    return await sync_to_async(execute)()


async def test_what_is_published_by_sql_has_the_log_of_its_topic_read():
    async with listening("room.a", "room.b") as (bus, heard):
        await publish_by_sql("room.a", announce=False)
        await publish_by_sql("room.c", announce=True)
        await publish_by_sql("room.b", announce=True)
        assert await heard.get() == ("room.b", MISSED)
        assert heard.empty()
        assert bus.dropped.count == 0


@override_settings(REALTIME={"BUS": "postgres", "HEAD_CHECK_SECONDS": 60.0})
async def test_readers_have_what_is_published_by_sql_without_a_check_of_the_heads():
    alice = await User.objects.acreate(username="alice")
    async with event_stream(application, "/topics/room.a/events", user=alice) as stream:
        for _ in range(3):
            event_id = await publish_by_sql("room.a", announce=True)
            assert (await stream.receive(20)).id == event_id


async def test_a_bus_listens_to_the_channels_of_its_topics_alone():
    topics = [f"user.{number}" for number in range(1_000)]
    async with listening("room.a") as (bus, _):
        assert +bus._listening == {channel_of("room.a"): 1}
        bus.join(topics)
        await bus.settled()
        assert len(+bus._listening) == CHANNELS
        bus.leave(topics)
        await bus.settled()
        assert +bus._listening == {channel_of("room.a"): 1}


async def test_two_that_listen_hear_each_other_in_order():
    async with listening("room.a") as (one, heard), listening("room.a") as (other, _):
        for number in range(30):
            assert await send(cursor("room.a", str(number)), bus=other)
        calls = (send(cursor("room.a", str(number)), bus=other) for number in range(30, 130))
        assert all(await asyncio.gather(*calls))
        got = [await heard.get() for _ in range(130)]
        assert got == [("room.a", [cursor("room.a", str(number))]) for number in range(130)]
        assert not one.is_down


@pytest.mark.parametrize("fault", [Proxy.cut, Proxy.silence, Proxy.half_open, Proxy.swallow])
async def test_a_connection_that_is_lost_or_silent_is_replaced(fault, caplog):
    async with proxied() as (proxy, setting), listening("room.a", **setting) as (bus, heard):
        assert await send(cursor("room.a"))
        assert await heard.get() == ("room.a", [cursor("room.a")])
        fault(proxy)
        assert await heard.get() == ("room.a", MISSED)
        assert await send(cursor("room.a"))
        assert await heard.get() == ("room.a", [cursor("room.a")])
        assert not bus.is_down
    said = [record.getMessage() for record in caplog.records if record.name == "realtime.hub"]
    assert len(said) == 2
    assert said[0].startswith("The PostgreSQL bus has no connection")
    assert said[1] == "The PostgreSQL bus works again."


async def test_a_backend_that_is_terminated_is_replaced():
    async with listening("room.a") as (bus, heard):
        assert bus._connection is not None
        pid = bus._connection._pgconn.backend_pid

        def terminate() -> None:
            with psycopg.connect(postgresql_uri()) as other:
                other.execute("SELECT pg_terminate_backend(%s)", [pid])

        await asyncio.to_thread(terminate)
        assert await heard.get() == ("room.a", MISSED)
        assert await send(cursor("room.a"))
        assert await heard.get() == ("room.a", [cursor("room.a")])


async def test_to_close_takes_no_file_descriptor():
    with override_settings(REALTIME=QUICK):
        connected = PostgresConnection(lambda *found: None, lambda: None)
        await connected.open()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))  # none is free
        try:
            async with asyncio.timeout(5):
                await connected.close()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_of_what_is_too_large_for_a_notification_the_log_is_read():
    room = MAX_BYTES - len(encode("room.a", [cursor("room.a", "")], MAX_BYTES))
    async with listening("room.a") as (_, heard):
        largest = cursor("room.a", "1" * (room - len("elsewhere") + len(this_process())))
        assert await send(largest)
        assert await heard.get() == ("room.a", [largest])
        assert await send(cursor("room.a", largest.data + "1"))
        assert await heard.get() == ("room.a", MISSED)
        many = [cursor("room.a", f'"{number:0500}"') for number in range(40)]
        assert await send(*many)  # in as few notifications as take them
        got: list[Event] = []
        while len(got) < len(many):
            _, message = await heard.get()
            assert isinstance(message, list)
            got += message
        assert got == many


async def test_one_that_does_not_read_during_a_flood_holds_up_nobody_and_reads_the_log():
    async with proxied() as (proxy, setting), listening("room.a", **setting) as (bus, heard):
        proxy.freeze()
        await notify(*(f"{number:07000}" for number in range(500)))  # more than sockets take
        assert await send(cursor("room.a"))
        while not bus.is_down:
            await asyncio.sleep(0.01)
        proxy.heal()
        assert await heard.get() == ("room.a", MISSED)
        assert await send(cursor("room.a", "2"))
        assert await heard.get() == ("room.a", [cursor("room.a", "2")])


async def test_a_statement_that_fails_takes_no_other_with_it():
    with override_settings(REALTIME=QUICK):
        connected = PostgresConnection(lambda *found: None, lambda: None)
        await connected.open()
        bad = connected.execute("NONSENSE")
        good = connected.execute("SELECT")
        done = await asyncio.gather(bad, good, return_exceptions=True)
        assert isinstance(done[0], psycopg.Error)
        assert done[1] is None
        await connected.close()
        with pytest.raises(ConnectionError):
            await connected.execute("SELECT")


async def test_a_close_that_is_cancelled_closes_the_connection(monkeypatch):
    with override_settings(REALTIME=QUICK):
        connected = PostgresConnection(lambda *found: None, lambda: None)
        await connected.open()
        close = AsyncMock(wraps=connected._connection.close)
        monkeypatch.setattr(connected._connection, "close", close)
        closing = asyncio.create_task(connected.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        close.assert_awaited_once()
        await asyncio.wait([connected._work])


def test_e018_another_database():
    assert ids(REALTIME={"BUS": "postgres"}) == []
    with patch.object(connection, "vendor", "sqlite"):
        assert "realtime.E018" in ids(REALTIME={"BUS": "postgres"})


def test_e020_what_is_no_url_and_its_password_is_not_said():
    for url in ("host=one port", "postgresql://me:hunter2@one:many words/"):
        with override_settings(REALTIME={"BUS": "postgres", "NOTIFY_DATABASE_URL": url}):
            [message] = run()
        assert message.id == "realtime.E020"
        assert "hunter2" not in str(message)
    url = "postgresql://me:hunter2@one:5432/site"
    assert ids(REALTIME={"BUS": "postgres", "NOTIFY_DATABASE_URL": url}) == []
