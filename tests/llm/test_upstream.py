"""`realtime.llm.providers.upstream` and both SDKs: an upstream's faults become our sentences."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from django.test import override_settings

from realtime.exceptions import ProviderError
from realtime.llm.provider import Answer, Provider
from realtime.llm.providers import get_provider
from realtime.llm.providers import upstream as ours
from tests.support.clients import eventually

from .upstream import EVENTS, Upstream, torn, upstream

KEY = "sk-very-secret-0123456789"
BOTH = pytest.mark.parametrize("name", sorted(EVENTS))


@asynccontextmanager
async def connected(name: str, **settings: Any) -> AsyncIterator[tuple[Upstream, Provider]]:
    """A provider's SDK, and the upstream that it talks to."""
    async with upstream() as fake:
        url = fake.url + ("/v1" if name == "openai" else "")
        options = {"LLM_PROVIDER": name, "LLM_BASE_URL": url, "LLM_API_KEY": KEY, **settings}
        with override_settings(REALTIME=options):
            provider = await get_provider()
            try:
                yield fake, provider
            finally:
                await provider.aclose()


async def ask(provider: Provider) -> tuple[str, Any]:
    async with Answer(provider, "Why?") as answer:
        text = "".join([piece async for piece in answer])
    return text, answer.stop


@BOTH
async def test_a_gateway_s_blocks_without_data_are_no_events(name):
    """As a gateway sends them to keep its connection, or to say when to come back."""
    blocks = [b"retry: 500\n\n", b"id: 7\n\n", b": still here\n\n", b": a\n"]
    async with connected(name) as (fake, provider):
        events = EVENTS[name](["Because", " of"])
        fake.respond(*(part for event in events for part in (*blocks, event)), *blocks)
        text, stop = await ask(provider)
    assert (text, stop.reason) == ("Because of", "end")


@BOTH
async def test_an_answer(name):
    async with connected(name, LLM_MODEL="m-1", LLM_MAX_TOKENS=99) as (fake, provider):
        fake.respond(*EVENTS[name](["Because", " of", " Grüße 東京 😀", ""]))
        text, stop = await ask(provider)
    assert text == "Because of Grüße 東京 😀"
    assert stop.data() == {
        "stop_reason": "end",
        "usage": {"input_tokens": 7, "output_tokens": 5},
    }
    body = fake.requests[0].body
    assert (body["model"], body["max_tokens"], body["stream"]) == ("m-1", 99, True)
    assert body["messages"] == [{"role": "user", "content": "Why?"}]


@BOTH
async def test_password_of_the_address_is_not_logged(name, caplog):
    async with upstream() as fake:
        url = fake.url.replace("http://", "http://me:pass-word@")
        options = {"LLM_PROVIDER": name, "LLM_BASE_URL": url, "LLM_API_KEY": KEY}
        with override_settings(REALTIME=options), caplog.at_level(1):
            provider = await get_provider()
            fake.respond(*EVENTS[name](["x"]))
            await ask(provider)
            await provider.aclose()
    logged = [record.getMessage() for record in caplog.records]
    assert any("http://[redacted]@127.0.0.1" in line for line in logged)
    assert not [line for line in logged if "pass-word" in line]


@BOTH
async def test_chunks_may_end_anywhere(name):
    texts = ["Grüße ", "東京", "😀", "\r\n\n data: x", "e\u0301"]
    async with connected(name) as (fake, provider):
        for seed in range(5):
            fake.respond(*torn(EVENTS[name](texts), seed))
            assert (await ask(provider))[0] == "".join(texts)


@BOTH
@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (400, {}, "does not take this request"),
        (401, {}, "does not take this site's key"),
        (403, {}, "may not use this model"),
        (404, {}, "does not know the model"),
        (413, {}, "too long for the model"),
        (429, {"retry-after": "17"}, "asked too often; try again in 17 s"),
        (429, {}, "asked too often; try again later"),
        (500, {}, "has a fault of its own"),
        (503, {}, "overloaded"),
        (529, {}, "overloaded"),
    ],
)
async def test_an_error_before_the_first_token(name, status, headers, says, caplog):
    caplog.set_level(logging.INFO)
    async with connected(name) as (fake, provider):
        error = {"message": f"Bad: {KEY}", "type": "whatever", "code": KEY}
        fake.respond(json.dumps({"error": error}).encode(), status=status, headers=headers)
        with pytest.raises(ProviderError, match=says) as caught:
            await ask(provider)
    assert len(fake.requests) == 1  # asked once: nothing is paid for twice
    assert KEY not in str(caught.value)
    assert KEY not in caplog.text


@BOTH
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("overloaded_error", "overloaded"),
        ("rate_limit_error", "asked too often"),
        ("something", r"failed to answer|fault of its own"),
    ],
)
async def test_an_error_in_the_middle(name, kind, says):
    async with connected(name) as (fake, provider):
        error = {"type": kind, "message": f"Bad: {KEY}"}
        fake.respond(*EVENTS[name](["half"], error=error), hangs=True)
        with pytest.raises(ProviderError, match=says) as caught:
            await ask(provider)
        await eventually(lambda: not fake.open, 10, "the upstream's close")
    assert KEY not in str(caught.value)


@BOTH
@pytest.mark.parametrize("cut", [True, False])
async def test_a_stream_that_ends_in_the_middle(name, cut):
    async with connected(name) as (fake, provider):
        fake.respond(*EVENTS[name](["half"], stop_reason=None), cut=cut)
        with pytest.raises(ProviderError, match=r"was complete|be reached|failed"):
            await ask(provider)


@BOTH
async def test_something_that_is_no_event_stream(name):
    async with connected(name) as (fake, provider):
        fake.respond(b"<html>", headers={"content-type": "text/html"})
        with pytest.raises(ProviderError):
            await ask(provider)
        fake.respond(b"data: {nonsense\n\n")
        with pytest.raises(ProviderError):
            await ask(provider)


@BOTH
async def test_a_hang_before_and_after_the_first_token(name):
    async with connected(name, LLM_TOKEN_SECONDS=0.3) as (fake, provider):
        for parts in ([], EVENTS[name](["half"], stop_reason=None)):
            fake.respond(*parts, hangs=True)
            with pytest.raises(ProviderError, match=r"sent nothing for 0\.3 s"):
                await ask(provider)
            await eventually(lambda: not fake.open, 10, "the upstream's close")


@BOTH
async def test_a_slow_first_token(name):
    async with connected(name, LLM_TOKEN_SECONDS=5.0) as (fake, provider):
        fake.respond(0.4, *EVENTS[name](["late"]))
        assert (await ask(provider))[0] == "late"


@BOTH
async def test_leaving_closes_the_upstream_connection(name):
    async with connected(name) as (fake, provider):
        fake.respond(*EVENTS[name](["a", "b"], stop_reason=None), hangs=True)
        async with Answer(provider, "Why?") as answer:
            assert await anext(aiter(answer)) == "a"
            assert fake.open == 1
        await eventually(lambda: not fake.open, 10, "the upstream's close")


@BOTH
@pytest.mark.parametrize("after", [0.05, 0.2])
async def test_cancelling_closes_the_upstream_connection(name, after):
    async with connected(name) as (fake, provider):
        fake.respond(0.1, *EVENTS[name](["a", "b"], stop_reason=None), hangs=True)
        task = asyncio.create_task(ask(provider))
        await eventually(lambda: fake.requests, 10, "the request")
        await asyncio.sleep(after)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await eventually(lambda: not fake.open, 10, "the upstream's close")


@BOTH
async def test_a_provider_that_refuses_connections_is_reported(name):
    async with connected(name) as (fake, _):
        url = fake.url
    gone = {"LLM_PROVIDER": name, "LLM_BASE_URL": url, "LLM_API_KEY": KEY}
    with override_settings(REALTIME=gone):
        provider = await get_provider()
        with pytest.raises(ProviderError, match="can't be reached"):
            await ask(provider)


@pytest.mark.parametrize(
    ("status", "kind", "retry_after", "says"),
    [
        (429, None, "5", "in 5 s"),
        (429, None, "Wed, 21 Oct 2026 07:28:00 GMT", "later"),
        (429, None, "99999999", "later"),
        (429, None, "-1", "later"),
        (502, None, None, "fault of its own"),
        (200, "timeout_error", None, "timed out"),
        (None, "overloaded_error", None, "overloaded"),
    ],
)
def test_sentences(status, kind, retry_after, says):
    assert says in (ours.sentence_for(status, kind, retry_after) or "")


def test_what_has_no_sentence():
    assert ours.sentence_for(418, "teapot", None) is None
    assert ours.sentence_for(None, None, None) is None
