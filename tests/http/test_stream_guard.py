"""`realtime.http.stream_guard`: a stream ends when its user is signed out."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.http import HttpRequest
from django.test import AsyncRequestFactory

from realtime.access.connections import get_connections
from realtime.access.identity import Identity
from realtime.access.tokens import create_token
from realtime.exceptions import NotIdentified
from realtime.http.requests import json_errors, require_user
from realtime.http.stream_guard import StreamGuard
from realtime.streaming.response import EventStreamResponse, StreamResponse

from ..support.clients import bearer

NOBODY: Any = Identity(object(), "token", "1")  # type: ignore[arg-type]


class Source:
    """Two parts, and then silence; it notes how it ends."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    async def parts(self) -> AsyncIterator[bytes]:
        try:
            yield b"one"
            yield b"two"
            await asyncio.sleep(60)
            yield b"three"
        finally:
            self.ends.append("closed")


def guarded(kind: type[StreamResponse]) -> tuple[Source, StreamResponse, StreamGuard]:
    source = Source()
    response = kind(source.parts())
    return source, response, StreamGuard(response, NOBODY)


async def read(response: Any, parts: list[bytes]) -> None:
    async for part in response:
        parts.append(part)


@pytest.mark.parametrize("kind", [StreamResponse, EventStreamResponse])
@pytest.mark.parametrize("how", ["recheck", "fail"])
async def test_silent_stream_is_ended_at_once(kind, how):
    source, response, guard = guarded(kind)
    parts: list[bytes] = []
    reading = asyncio.ensure_future(read(response, parts))
    while len(parts) < 2:
        assert not reading.done(), "it has failed, and more will not come"
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert list(get_connections().connections) == [NOBODY]
    await (guard.recheck(None) if how == "recheck" else guard.fail())
    if kind is EventStreamResponse:
        await asyncio.wait_for(reading, 20)
    else:  # what has come must not look complete
        with pytest.raises(NotIdentified):
            await asyncio.wait_for(reading, 20)
    assert (parts, source.ends) == ([b"one", b"two"], ["closed"])
    assert not get_connections().connections


async def test_stream_of_a_client_that_is_slow_sends_no_more():
    source, response, guard = guarded(EventStreamResponse)
    parts = aiter(response)
    assert await anext(parts) == b"one"
    await guard.recheck(None)
    assert [part async for part in parts] == []
    assert source.ends == ["closed"]


async def test_stream_goes_on_while_its_user_is_there():
    _, response, guard = guarded(StreamResponse)
    parts = aiter(response)
    assert await anext(parts) == b"one"
    await guard.recheck(NOBODY)
    assert await anext(parts) == b"two"
    await parts.aclose()


async def test_cancellation_from_outside_is_no_end():
    source, response, _ = guarded(StreamResponse)
    parts: list[bytes] = []
    reading = asyncio.ensure_future(read(response, parts))
    while len(parts) < 2:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert source.ends == ["closed"]


async def test_body_that_the_view_has_wrapped_is_guarded_too():
    source = Source()
    response = StreamResponse(source.parts())
    inner = response.streaming_content

    async def upper() -> AsyncIterator[bytes]:
        async for part in inner:
            yield part.upper()

    response.streaming_content = upper()
    guard = StreamGuard(response, NOBODY)
    parts = aiter(response)
    assert await anext(parts) == b"ONE"
    await guard.fail()
    with pytest.raises(NotIdentified):
        await anext(parts)


@pytest.mark.django_db(transaction=True)
async def test_view_that_asks_for_its_user_has_its_stream_guarded(django_user_model):
    alice = await django_user_model.objects.acreate_user("alice")
    token, row = await sync_to_async(create_token)(alice)

    @json_errors("GET")
    async def view(request: HttpRequest) -> StreamResponse:
        await require_user(request)
        return EventStreamResponse(Source().parts())

    request = AsyncRequestFactory().get("/", headers=bearer(token))
    response: Any = await view(request)
    parts = aiter(response)
    await anext(parts)
    assert [identity.key for identity in get_connections().connections] == [str(row.pk)]
    await parts.aclose()
