"""A site whose language model is the test's own upstream."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace
from typing import Any

import httpx

from realtime.testing import ServerSentEvent
from tests.support.clients import Stream, bearer
from tests.support.sites import site_for_module

from .upstream import Upstream

KEY = "sk-very-secret-0123456789"


@contextmanager
def site_asking(
    fake: Upstream, template: Mapping[str, str], constants: Mapping[str, Any], *arguments: str
) -> Iterator[SimpleNamespace]:
    """A served site whose /chat asks `fake`."""
    env = {
        "LLM_PROVIDER": "openai",
        "OPENAI_BASE_URL": f"{fake.url}/v1",
        "OPENAI_API_KEY": KEY,
        "LOG_LEVEL": "DEBUG",
        "TEST_MIDDLEWARE": '["django.middleware.gzip.GZipMiddleware"]',
    }
    with site_for_module(template, constants, *arguments, **env) as site:
        yield site


@asynccontextmanager
async def asking(site: Any, prompt: str, user: str = "alice", **headers: str) -> AsyncIterator[Any]:
    """An answer on the request."""
    async with (
        httpx.AsyncClient(timeout=30) as client,
        client.stream(
            "GET",
            f"{site.url}/chat",
            params={"prompt": prompt},
            headers={**bearer(site.tokens[user]), **headers},
        ) as response,
    ):
        assert response.status_code == 200, await response.aread()
        yield Stream(response)


async def rest_of(stream: Stream) -> list[ServerSentEvent]:
    """All events up to the end of the stream."""
    return [
        ServerSentEvent(event.event, event.data, event.id)
        async for event in stream._events
        if event.data
    ]
