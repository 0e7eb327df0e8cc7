"""Event streams over a site's own generators."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from django.http import StreamingHttpResponse
from django.test import override_settings

from realtime.streaming.response import (
    EventStreamResponse,
    StreamResponse,
    content_disposition,
    keep_alive,
)
from realtime.streaming.sse import KEEPALIVE

from ..support.attempts import three_tries_of
from ..support.clients import eventually, open_stream
from ..support.clock import InstantLoop
from ..support.servers import wait_until
from ..support.sites import site_for_module


class Source:
    """A generator that says what happens to it."""

    def __init__(self, *parts: bytes | float | Exception) -> None:
        self.parts = parts
        self.produced = 0
        self.finished = False
        self.tasks: set[Any] = set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.tasks.add(asyncio.current_task())
        try:
            for part in self.parts:
                if isinstance(part, Exception):
                    raise part
                if isinstance(part, float):
                    await asyncio.sleep(part)
                    continue
                self.produced += 1
                yield part
        finally:
            self.tasks.add(asyncio.current_task())
            await asyncio.sleep(0)  # as one that says goodbye to its upstream
            self.finished = True


async def collect(parts: Any, got: list[bytes] | None = None) -> list[bytes]:
    got = [] if got is None else got
    async for part in parts:
        got.append(part)
    return got


# -- what is a source


@pytest.mark.parametrize("source", [[b"a"], (b for b in [b"a"]), b"abc"])
def test_a_synchronous_source_is_refused_with_the_remedy(source):
    with pytest.raises(TypeError, match="async def"):
        EventStreamResponse(source)


async def test_headers_are_defaults_and_no_more():
    response = EventStreamResponse(Source(b"a"))
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-cache, no-transform"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert response.headers["Content-Encoding"] == "identity"
    response = EventStreamResponse(Source(b"a"), headers={"Cache-Control": "no-store"})
    assert response.headers["Cache-Control"] == "no-store"
    assert isinstance(response, StreamingHttpResponse)


async def test_a_source_is_passed_on_whole_and_closed():
    source = Source(b"a", b"b", b"c")
    assert await collect(EventStreamResponse(source)) == [b"a", b"b", b"c"]
    assert source.finished
    source = Source(b"a", b"b")
    assert await collect(StreamResponse(source)) == [b"a", b"b"]
    assert source.finished


async def test_a_source_that_fails_is_heard_of():
    source = Source(b"a", RuntimeError("on purpose"))
    got: list[bytes] = []
    with pytest.raises(RuntimeError, match="on purpose"):
        await collect(EventStreamResponse(source), got)
    assert got == [b"a"]
    assert source.finished


@pytest.mark.parametrize("kind", [EventStreamResponse, StreamResponse])
async def test_leaving_in_the_middle_runs_finally(kind):
    source = Source(b"a", b"b", b"c", 60.0)
    stream = aiter(kind(source))
    assert await anext(stream) == b"a"
    await stream.aclose()
    assert source.finished
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("kind", [EventStreamResponse, StreamResponse])
async def test_being_cancelled_while_the_source_waits_runs_finally(kind):
    source = Source(b"a", 60.0)
    reading = asyncio.create_task(collect(kind(source)))
    await eventually(lambda: source.produced == 1)
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert source.finished
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_iterator_that_can_not_be_closed_will_do():
    class Bare:
        def __init__(self) -> None:
            self.left = [b"b", b"a"]

        def __aiter__(self) -> "Bare":
            return self

        async def __anext__(self) -> bytes:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    assert await collect(EventStreamResponse(Bare())) == [b"a", b"b"]


# -- keepalive


def test_comments_fill_the_silence():
    source = Source(0.12, b"a", 0.12, b"b")
    with asyncio.Runner(loop_factory=InstantLoop) as runner:  # no busy machine is in its way
        got = runner.run(collect(keep_alive(source, 0.05)))
    assert [part for part in got if part != KEEPALIVE] == [b"a", b"b"]
    assert got.count(KEEPALIVE) >= 4
    assert got[0] == KEEPALIVE


async def test_the_source_does_not_run_far_ahead():
    source = Source(*[b"x"] * 50)
    stream = keep_alive(source, 10)
    await anext(stream)
    for _ in range(100):
        await asyncio.sleep(0)
    assert source.produced <= 3
    await stream.aclose()
    assert source.finished


async def test_the_interval_is_the_setting_s():
    with override_settings(REALTIME={"KEEPALIVE_SECONDS": 0.03}):
        got = await collect(EventStreamResponse(Source(0.1, b"a")))
    assert got[0] == KEEPALIVE


# -- middleware


async def test_a_middleware_may_wrap_the_body():
    source = Source(b"a", b"b")
    response = EventStreamResponse(source)
    assert response.is_untouched
    inner = response.streaming_content

    async def shout() -> AsyncIterator[bytes]:
        async for part in inner:
            yield part.upper()

    response.streaming_content = shout()
    assert not response.is_untouched
    assert await collect(response) == [b"A", b"B"]
    assert source.finished


async def test_a_wrapped_body_that_is_left_runs_finally():
    source = Source(b"a", b"b", 60.0)
    response = EventStreamResponse(source)
    inner = response.streaming_content

    async def wrap() -> AsyncIterator[bytes]:
        async for part in inner:
            yield part

    response.streaming_content = wrap()
    stream = aiter(response)
    assert await anext(stream) == b"a"
    await stream.aclose()
    assert source.finished
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})


# -- over real sockets


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    middleware = '["django.middleware.gzip.GZipMiddleware"]'
    constants = {"KEEPALIVE_SECONDS": 0.1}
    with site_for_module(_site_template, constants, TEST_MIDDLEWARE=middleware) as site:
        yield site


def finished(here: Any, name: str) -> bool:
    return name in httpx.get(f"{here.url}/tests/inside").json()["finished"]


async def test_a_generator_s_events_arrive_when_they_are_made(here):
    loop = asyncio.get_running_loop()
    url = f"{here.url}/tests/ticking?name=arrive&interval=0.6&count=3"

    async def read() -> None:
        async with open_stream(url, headers={"Accept-Encoding": "gzip"}) as stream:
            assert stream.headers.get("content-encoding") in (None, "identity")
            times = []
            for _ in range(3):
                await stream.next()
                times.append(loop.time())
            await stream.ended()
            assert times[2] - times[0] > 0.4

    await three_tries_of(read)
    assert await asyncio.to_thread(finished, here, "arrive")


async def test_a_topic_stream_is_never_compressed(here):
    url = f"{here.url}/topics/public.gzip/events"
    async with open_stream(url, headers={"Accept-Encoding": "gzip"}) as stream:
        assert stream.headers.get("content-encoding") in (None, "identity")


async def test_finally_runs_within_a_second_of_the_client_s_leaving(here):
    numbers = count()

    async def leave() -> None:
        name = f"leave{next(numbers)}"
        async with open_stream(f"{here.url}/tests/ticking?name={name}&interval=60") as stream:
            await stream.next()
        await asyncio.to_thread(wait_until, lambda: finished(here, name), 1.5)

    await three_tries_of(leave)


async def test_a_source_that_fails_cuts_the_stream_off(here):
    here.server.expected.append("failed on purpose")
    url = f"{here.url}/tests/ticking?name=fail&interval=0&count=2&error=1"
    async with open_stream(url) as stream:
        with pytest.raises(httpx.RemoteProtocolError):  # no last chunk: this is not the end
            await stream.ended()
    assert await asyncio.to_thread(finished, here, "fail")
    await eventually(lambda: any("failed on purpose" in line for line in here.log))


def test_a_name_that_is_not_utf8():
    header = content_disposition(os.fsdecode(b"a\xff\nb.txt"), False)
    assert header == "inline; filename=\"a__b.txt\"; filename*=UTF-8''a%3F%0Ab.txt"
