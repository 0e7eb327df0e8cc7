"""`realtime.llm.provider`: an answer ends with a `Stop` or a sentence, and closes its source."""

import asyncio
import logging
import re

import pytest
from django.test import override_settings

from realtime.exceptions import InvalidPrompt, ProviderError
from realtime.llm.provider import Answer, Stop, validate_prompt
from realtime.llm.providers.dummy import DummyProvider
from tests.support.clients import eventually
from tests.support.clock import InstantLoop

SECRET = "sk-very-secret"


async def read(answer: Answer) -> list[str]:
    async with answer:
        return [text async for text in answer]


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (None, "no prompt"),
        ("", "empty"),
        (" \n\t", "empty"),
        (7, "int, not a string"),
        ("x" * 21, "21 characters; 20 are the most"),
        ("\ud83d", "surrogate"),
    ],
)
def test_invalid_prompts_are_refused_before_the_provider_is_asked(prompt, says):
    with (
        override_settings(REALTIME={"LLM_MAX_PROMPT_CHARS": 20}),
        pytest.raises(InvalidPrompt, match=says),
    ):
        validate_prompt(prompt)


def test_a_prompt_stays_as_it_is():
    assert validate_prompt(" Grüße\0 ") == " Grüße\0 "


async def test_the_pieces_and_why_it_ended():
    dummy = DummyProvider("a", "", "b", stop=Stop("end", {"output_tokens": 2}))
    answer = Answer(dummy, "say")
    assert await read(answer) == ["a", "b"]
    assert answer.stop is not None
    assert answer.stop.data() == {"stop_reason": "end", "usage": {"output_tokens": 2}}
    assert dummy.prompts == ["say"]
    assert dummy.open == 0


async def test_leaving_closes_the_source():
    dummy = DummyProvider("a", "b", hangs=True)
    async with Answer(dummy, "say") as answer:
        assert await anext(aiter(answer)) == "a"
        assert dummy.open == 1
    assert dummy.open == 0


async def test_cancelling_closes_the_source():
    dummy = DummyProvider(hangs=True)
    task = asyncio.create_task(read(Answer(dummy, "say")))
    await eventually(lambda: dummy.open == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert dummy.open == 0


async def test_the_length_limit_cuts_and_closes():
    dummy = DummyProvider("abc", "def", hangs=True)
    with override_settings(REALTIME={"LLM_MAX_ANSWER_CHARS": 5}):
        answer = Answer(dummy, "say")
        assert await read(answer) == ["abc", "de"]
    assert answer.stop == Stop("length")
    assert dummy.open == 0


async def test_a_limit_that_falls_between_two_pieces():
    with override_settings(REALTIME={"LLM_MAX_ANSWER_CHARS": 3}):
        answer = Answer(DummyProvider("abc", "def"), "say")
        assert await read(answer) == ["abc"]
    assert answer.stop == Stop("length")


async def test_silence_ends_with_a_sentence():
    dummy = DummyProvider("a", hangs=True)
    with (
        override_settings(REALTIME={"LLM_TOKEN_SECONDS": 0.05}),
        pytest.raises(ProviderError, match=r"has sent nothing for 0\.05 s"),
    ):
        await read(Answer(dummy, "say"))
    assert dummy.open == 0


def test_signs_of_life_are_no_silence():
    async def ask() -> list[str]:
        return await read(Answer(DummyProvider(*[""] * 5, "a", delay=0.03), "say"))

    with (
        override_settings(REALTIME={"LLM_TOKEN_SECONDS": 0.1}),
        asyncio.Runner(loop_factory=InstantLoop) as runner,  # a busy machine is no silence either
    ):
        assert runner.run(ask()) == ["a"]


async def test_the_whole_has_a_limit_too():
    dummy = DummyProvider(*"abcdefgh", delay=0.03)
    with (
        override_settings(REALTIME={"LLM_ANSWER_SECONDS": 0.1}),
        pytest.raises(ProviderError, match=r"was not done after 0\.1 s"),
    ):
        await read(Answer(dummy, "say"))
    assert dummy.open == 0


async def test_an_end_without_a_stop_is_a_cut():
    class Cut(DummyProvider):
        async def stream(self, prompt):
            yield "half"

    with pytest.raises(ProviderError, match="before the answer was complete"):
        await read(Answer(Cut(), "say"))


async def test_the_text_of_a_providers_error_is_neither_raised_nor_logged(caplog):
    caplog.set_level(logging.DEBUG)
    dummy = DummyProvider("a", error=ValueError(f"key {SECRET} is bad"))
    with pytest.raises(ProviderError) as caught:
        await read(Answer(dummy, "say"))
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__
    assert SECRET not in caplog.text
    assert "dummy failed: ValueError\n" in caplog.text
    assert re.search(r'File ".*/dummy\.py", line \d+, in stream', caplog.text)


async def test_of_what_is_explained_no_lines_are_logged(caplog):
    class Explaining(DummyProvider):
        def explain(self, error):
            return "It is overloaded."

    with pytest.raises(ProviderError, match="overloaded"):
        await read(Answer(Explaining(error=ValueError()), "say"))
    assert "File" not in caplog.text


class NoGenerator(DummyProvider):
    async def stream(self, prompt):
        return "a whole answer"


class OtherArguments(DummyProvider):
    async def stream(self):
        yield "a"


class Numbers(DummyProvider):
    async def stream(self, prompt):
        yield 7


@pytest.mark.filterwarnings("ignore:coroutine 'NoGenerator.stream' was never awaited")
@pytest.mark.parametrize(
    ("provider", "logged"),
    [
        (NoGenerator, "gives a coroutine: write it as `async def` with `yield`"),
        (OtherArguments, "failed: TypeError\n"),
        (Numbers, "yields text and a Stop, not int"),
    ],
)
async def test_a_stream_that_is_none_fails_as_its_client_is_told(provider, logged, caplog):
    with pytest.raises(ProviderError, match="failed to answer"):
        await read(Answer(provider(), "say"))
    assert logged in caplog.text


async def test_a_provider_that_fails_to_explain():
    class Worse(DummyProvider):
        def explain(self, error):
            raise error

    with pytest.raises(ProviderError, match="failed to answer"):
        await read(Answer(Worse(error=ValueError()), "say"))


async def test_characters_that_a_server_has_cut_in_two():
    answer = Answer(DummyProvider("a\ud83d", "\ude00b", "\ude00", "c\ud83d", "d"), "say")
    assert await read(answer) == ["a", "😀b", "�", "c", "�d"]
