"""`realtime.llm.providers.offline`: says what it is, and always the same."""

from realtime.llm.provider import Answer
from realtime.llm.providers import offline


async def say(prompt: str) -> list[str]:
    async with Answer(offline.OfflineProvider(), prompt) as answer:
        return [text async for text in answer]


async def test_it_says_what_it_is_and_always_the_same(monkeypatch):
    monkeypatch.setattr(offline, "WORD_SECONDS", 0)
    words = await say("Why {is} 100 % of the\nsky blue?")
    assert "".join(words).startswith("No language model is connected here")
    assert "“Why {is} 100 % of the sky blue?”" in "".join(words)
    assert len(words) > 50
    assert words == await say("Why {is} 100 % of the\nsky blue?")


async def test_a_long_prompt_is_not_said_again_whole(monkeypatch):
    monkeypatch.setattr(offline, "WORD_SECONDS", 0)
    assert "x" * 200 + "…”" in "".join(await say("x" * 5000))
