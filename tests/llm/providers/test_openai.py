"""`realtime.llm.providers.openai`: what is particular to it; see also test_upstream."""

import pytest
from django.test import override_settings

from realtime.exceptions import ProviderError, ProviderUnavailable
from realtime.llm.providers import get_provider
from tests.support.clients import eventually

from ..test_upstream import KEY, ask, connected
from ..upstream import openai_events, sse


async def test_the_key_goes_where_it_belongs():
    async with connected("openai") as (fake, provider):
        fake.respond(*openai_events(["x"]))
        await ask(provider)
    assert fake.requests[0].path == "/v1/chat/completions"
    assert fake.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_an_administrator_s_key_in_the_environment_is_not_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-much-more-secret")
    for key, sent in ((KEY, KEY), ("", "none")):
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        async with connected("openai", LLM_API_KEY=key) as (fake, provider):
            fake.respond(*openai_events(["x"]))
            await ask(provider)
        assert fake.requests[0].headers["authorization"] == f"Bearer {sent}"
        assert "sk-admin" not in str(fake.requests[0])


async def test_an_administrator_s_key_makes_no_provider(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-much-more-secret")
    with (
        override_settings(REALTIME={"LLM_PROVIDER": "openai"}),
        pytest.raises(ProviderUnavailable),
    ):
        await get_provider()


async def test_what_is_asked():
    options = {"LLM_MODEL": "m-1", "LLM_MAX_TOKENS": 99}
    async with connected("openai", **options) as (fake, provider):
        fake.respond(*openai_events(["x"]))
        await ask(provider)
    assert fake.requests[0].body == {
        "model": "m-1",
        "messages": [{"role": "user", "content": "Why?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 99,
    }


async def test_a_local_server_needs_no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with connected("openai", LLM_API_KEY="") as (fake, provider):
        fake.respond(*openai_events(["x"]))
        assert (await ask(provider))[0] == "x"


async def test_without_key_and_address_there_is_no_provider(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with (
        override_settings(REALTIME={"LLM_PROVIDER": "openai"}),
        pytest.raises(ProviderUnavailable),
    ):
        await get_provider()


@pytest.mark.parametrize(
    ("theirs", "ours"), [("length", "length"), ("content_filter", "refusal"), ("stop", "end")]
)
async def test_stop_reasons(theirs, ours):
    async with connected("openai") as (fake, provider):
        fake.respond(*openai_events(["x"], stop_reason=theirs))
        _, stop = await ask(provider)
    assert stop.reason == ours


async def test_a_server_that_forgets_the_last_line():
    async with connected("openai") as (fake, provider):
        fake.respond(*openai_events(["x"], done=False))
        assert (await ask(provider))[0] == "x"


async def test_comments_and_strange_chunks_are_passed_over():
    extra = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    odd = [
        b": keep-alive\n\n",
        sse({**extra, "choices": []}),
        sse({**extra, "choices": None, "usage": None}),
        sse(extra),
        sse({**extra, "choices": [{"index": 0}]}),
        sse({**extra, "choices": [{"index": 0, "delta": None, "finish_reason": None}]}),
        sse({**extra, "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}),
        sse({**extra, "choices": [{"index": 0, "delta": {"content": None}}]}),
    ]
    async with connected("openai") as (fake, provider):
        fake.respond(*odd, *openai_events(["x"]))
        assert (await ask(provider))[0] == "x"


@pytest.mark.parametrize("data", ["5", "null", "[]", '{"choices": 5}', '{"choices": [5]}'])
async def test_json_that_is_no_chunk(data):
    async with connected("openai") as (fake, provider):
        fake.respond(sse(data), hangs=True)
        with pytest.raises(ProviderError, match="failed to answer"):
            await ask(provider)
        await eventually(lambda: not fake.open, 10, "the upstream's close")


async def test_a_usage_that_is_told_in_part():
    usage = {"prompt_tokens": None, "completion_tokens": 5}
    *events, _, _ = openai_events(["x"])
    async with connected("openai") as (fake, provider):
        fake.respond(*events, sse({"choices": [], "usage": usage}), sse("[DONE]"))
        _, stop = await ask(provider)
    assert stop.usage == {"output_tokens": 5}
