"""A stream's own generator sees its request's variables, and shares threads with the others."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.db import connection
from django.utils import translation
from django.utils.translation import gettext

from realtime.conf import Settings
from realtime.llm.run import use_stream_thread
from realtime.streaming.ndjson import NDJSONResponse
from realtime.streaming.response import EventStreamResponse
from realtime.streaming.source_context import RequestVariables
from realtime.utils.aio import spawn

LIMIT = Settings.STREAM_THREADS.default
tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def sse(source: AsyncIterator[str]) -> EventStreamResponse:
    async def encoded() -> AsyncIterator[bytes]:
        async for text in source:
            yield text.encode()

    return EventStreamResponse(encoded())


def ndjson(source: AsyncIterator[str]) -> NDJSONResponse:
    return NDJSONResponse(source)


async def body(response: Any) -> str:
    return b"".join([part async for part in response]).decode()


async def of_calls(*calls: Callable[[], object]) -> AsyncIterator[str]:
    for call in calls:
        yield str(await sync_to_async(call)())


@pytest.mark.parametrize("response", [sse, ndjson])
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "below a sync middleware"])
def test_variables_of_the_request(response, is_async):
    """Set around the view by middleware, and gone when the body is asked for."""

    async def source() -> AsyncIterator[str]:
        yield f"{tenant.get()} {gettext('Monday')} "
        yield await sync_to_async(lambda: f"{tenant.get()} {gettext('Monday')}")()

    async def view() -> Any:
        return response(source())

    async def main() -> str:
        token = tenant.set("acme")
        with translation.override("de"):
            if is_async:
                made = await view()
            else:
                made = await sync_to_async(async_to_sync(view))()
        tenant.reset(token)
        return await body(made)

    text = asyncio.run(main()).replace('"', "").replace("\n", "")
    assert text == "acme Montag acme Montag"


async def test_synchronous_parts_run_side_by_side():
    """All of them in one thread would never meet."""
    meeting = threading.Barrier(LIMIT, timeout=20)
    streams = [body(sse(of_calls(meeting.wait))) for _ in range(LIMIT)]
    assert sorted(await asyncio.gather(*streams)) == [str(number) for number in range(LIMIT)]


async def test_those_of_one_stream_run_one_after_the_other_in_one_thread():
    running: list[int] = []

    def call() -> int:
        running.append(1)
        time.sleep(0.02)
        return len(running) + running.pop() - 1

    async def source() -> AsyncIterator[str]:
        most = await asyncio.gather(*(sync_to_async(call)() for _ in range(5)))
        threads = {await sync_to_async(threading.get_ident)() for _ in range(3)}
        yield f"{max(most)} {len(threads)}"

    assert await body(sse(source())) == "1 1"


async def test_idle_streams_hold_no_thread():
    seen: set[int] = set()
    ready, end = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncIterator[str]:
        seen.add(await sync_to_async(threading.get_ident)())
        count.append(1)
        if len(count) == 3 * LIMIT:
            ready.set()
        await end.wait()
        yield "x"

    count: list[int] = []
    streams = [asyncio.create_task(body(sse(source()))) for _ in range(3 * LIMIT)]
    async with asyncio.timeout(20):
        await ready.wait()
    assert len(seen) <= LIMIT
    end.set()
    await asyncio.gather(*streams)


@pytest.mark.django_db(transaction=True)
async def test_a_connection_is_kept_between_two_calls():
    """For an open cursor, which goes on."""

    def connected() -> int:
        connection.ensure_connection()
        return id(connection.connection)

    async def source() -> AsyncIterator[str]:
        first = await sync_to_async(connected)()
        yield str(await sync_to_async(connected)() == first)

    assert await body(sse(source())) == "True"


def test_the_thread_is_not_the_requests():
    """Which waits no more, and would be kept by the stream."""

    def name() -> str:  # the number of a thread that has ended may be given to the next
        return threading.current_thread().name

    async def main() -> tuple[str, str]:
        async with ThreadSensitiveContext():
            requests = await sync_to_async(name)()
            return requests, await body(sse(of_calls(name)))

    requests, streams = asyncio.run(main())  # a task that has no stream's thread yet
    assert streams != requests


def test_a_task_without_a_request_gets_a_thread_too():
    async def ident() -> int:
        use_stream_thread()
        return await sync_to_async(threading.get_ident)()

    token = tenant.set("acme")
    variables = RequestVariables()
    tenant.reset(token)

    async def entered() -> str:
        variables.enter()
        return tenant.get()

    async def main() -> None:
        assert await spawn(ident()) != await sync_to_async(threading.get_ident)()
        assert await spawn(entered()) == "acme"

    asyncio.run(main())
