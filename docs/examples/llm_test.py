from django.test import override_settings

from realtime.llm.provider import Answer
from realtime.llm.providers import get_provider
from realtime.llm.providers.dummy import DummyProvider


async def test_what_we_do_with_an_answer():
    dummy = DummyProvider("Hello", ", world")
    with override_settings(REALTIME={"LLM_PROVIDER": lambda: dummy}):
        async with Answer(await get_provider(), "Say hello") as answer:
            assert "".join([text async for text in answer]) == "Hello, world"
    assert dummy.prompts == ["Say hello"]
