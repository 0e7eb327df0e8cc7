"""`realtime.llm.providers.dummy`, as a site's own tests use it."""

from django.test import override_settings

from realtime.llm.provider import Answer
from realtime.llm.providers import get_provider
from realtime.llm.providers.dummy import DummyProvider


async def test_a_site_tests_what_it_does_with_an_answer():
    dummy = DummyProvider("Hello", ", world")
    with override_settings(REALTIME={"LLM_PROVIDER": lambda: dummy}):
        provider = await get_provider()
        async with Answer(provider, "Say hello") as answer:
            assert [text async for text in answer] == ["Hello", ", world"]
    assert dummy.prompts == ["Say hello"]


async def test_by_its_short_name():
    with override_settings(REALTIME={"LLM_PROVIDER": "dummy"}):
        async with Answer(await get_provider(), "x") as answer:
            assert "".join([text async for text in answer]) == "A dummy answer."
