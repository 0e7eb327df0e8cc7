"""`realtime.utils.reconnect`: a dropped connection costs one call at most, wherever that is made.

On PostgreSQL, whose server can drop one; SQLite has none that could break.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from asgiref.sync import SyncToAsync, sync_to_async
from django.contrib.auth.models import AnonymousUser, User
from django.db import Error, connection, connections

from realtime.access.permissions import may
from realtime.server.request_threads import RequestThreads, with_borrowed_threads
from realtime.streaming import source_context
from realtime.streaming.ndjson import NDJSONResponse
from realtime.utils.aio import spawn
from realtime.utils.reconnect import ReconnectingThread, replace_dropped_connections

from ..support.databases import ON_POSTGRESQL

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not ON_POSTGRESQL, reason="there is no server to drop it"),
]
KILL_OTHERS = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture(autouse=True)
def _no_dead_connection_left(settings: Any) -> Iterator[None]:
    settings.REALTIME = {"PERMISSION": permit_users, "STREAM_THREADS": 1}
    source_context._threads.cache_clear()
    yield
    threads = source_context._threads()
    threads.submit(threads.borrow(), connections.close_all).result()
    source_context._threads.cache_clear()
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()


def kill_all() -> None:
    """End all connections of this process, as a restart of the server does."""
    params = connection.get_connection_params()
    where = {name: params[name] for name in ("dbname", "user", "host", "port") if name in params}
    with psycopg.connect(**where, autocommit=True) as killer:
        killer.execute(KILL_OTHERS)


async def in_a_task() -> Any:
    return await User.objects.acount()


async def in_a_rule() -> Any:
    return await may(AnonymousUser(), "room.a", "read")


async def in_a_source() -> Any:
    async def rows() -> AsyncIterator[int]:
        yield await User.objects.acount()

    return [part async for part in NDJSONResponse(rows())]


async def in_a_cursor() -> Any:
    return [user async for user in User.objects.order_by("pk").aiterator()]


async def permit_users(user: Any, topic: str, action: str) -> bool:
    return await User.objects.acount() == 1


@pytest.mark.parametrize("use", [in_a_task, in_a_rule, in_a_source, in_a_cursor])
@pytest.mark.parametrize("is_checked", [True, False])
def test_the_next_call_works(
    use: Callable[[], Coroutine[Any, Any, Any]],
    is_checked: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("realtime.utils.reconnect.IDLE_SECONDS", 0)
    monkeypatch.setitem(connection.settings_dict, "CONN_HEALTH_CHECKS", is_checked)
    User.objects.create(username="alice")

    async def main() -> None:
        before = await spawn(use())
        assert before
        await asyncio.to_thread(kill_all)
        if not is_checked:  # then somebody has to find out
            with suppress(Error):
                await spawn(use())
        assert await spawn(use()) == before

    connections.close_all()  # this thread's, which the flush of the tables needs afterwards
    asyncio.run(main())


def test_a_connection_that_outlived_its_pool_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime.utils.reconnect.IDLE_SECONDS", 0)
    thread = ReconnectingThread()
    assert thread.submit(User.objects.count).result() == 0
    connections.close_all()
    connection.close_pool()  # the next one is made by whichever thread looks for it first
    kill_all()
    assert thread.submit(User.objects.count).result() == 0
    thread.submit(connections.close_all).result()
    thread.shutdown()


def test_a_stream_that_keeps_its_thread_goes_on_after_one_error() -> None:
    threads = RequestThreads(1)
    threads.before_call = [replace_dropped_connections]
    counts: list[int] = []

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        counts.append(await User.objects.acount())
        await asyncio.to_thread(kill_all)
        with suppress(Error):
            await User.objects.acount()
        counts.append(await User.objects.acount())
        await sync_to_async(connections.close_all)()

    connections.close_all()
    asyncio.run(with_borrowed_threads(stream, threads)({"type": "http"}, None, None))
    assert counts == [0, 0]


def test_a_transaction_under_way_is_left_alone() -> None:
    thread = ReconnectingThread()

    def begin() -> None:
        connection.ensure_connection()
        connection.in_atomic_block = connection.errors_occurred = True

    def state() -> bool:
        has_error, connection.in_atomic_block = connection.errors_occurred, False
        connections.close_all()
        return has_error

    thread.submit(begin).result()
    assert thread.submit(state).result()
    thread.shutdown()
