"""`realtime.llm.providers.anthropic`: what is particular to it; see also test_upstream."""

import pytest

from ..test_upstream import KEY, ask, connected
from ..upstream import anthropic_events, sse


async def test_the_key_goes_where_it_belongs():
    async with connected("anthropic") as (fake, provider):
        fake.respond(*anthropic_events(["x"]))
        await ask(provider)
    assert fake.requests[0].path == "/v1/messages"
    headers = fake.requests[0].headers
    assert KEY in (headers.get("x-api-key"), headers.get("authorization", "")[len("Bearer ") :])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("max_tokens", "length"), ("stop_sequence", "end"), ("refusal", "refusal")],
)
async def test_stop_reasons(theirs, ours):
    async with connected("anthropic") as (fake, provider):
        fake.respond(*anthropic_events(["x"], stop_reason=theirs))
        _, stop = await ask(provider)
    assert stop.reason == ours


async def test_thoughts_are_a_sign_of_life_and_not_the_answer():
    start, block, ping, *rest = anthropic_events(["x"])
    thought = {"type": "thinking_delta", "thinking": "hm"}
    thinking = [
        sse(event, event["type"])
        for event in (
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "thinking", "thinking": "", "signature": ""},
            },
            {"type": "content_block_delta", "index": 0, "delta": thought},
            {"type": "content_block_stop", "index": 0},
        )
    ]
    after = [part.replace(b'"index": 0', b'"index": 1') for part in (block, ping, *rest)]
    async with connected("anthropic") as (fake, provider):
        fake.respond(start, thinking[0], *[thinking[1]] * 5, thinking[2], *after)
        pieces = [piece async for piece in provider.stream("Why?")]
    # What an empty piece is worth: `test_signs_of_life_are_no_silence`.
    assert pieces[:-1] == [""] * 5 + ["x"]
