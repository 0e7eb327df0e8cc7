"""`realtime.llm.run` on a clock that does not wait: what it writes, and when."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import pytest
from django.test import override_settings

from realtime.exceptions import ProviderUnavailable
from realtime.llm import run as run_module
from realtime.llm.models import Generation
from realtime.llm.providers.dummy import DummyProvider
from realtime.llm.run import BROKEN, RUNNING, STOPPING, Run
from tests.support.clock import InstantLoop

AT_MOST = 1_000  # calls of the database before a test is given up


class Database:
    """Stands for the thread: the functions that it was asked to call, and their arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.error: Exception | None = None
        self.has_ended = False

    async def __call__(self, function: Callable[..., Any], _: Any, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        name = function.__name__
        self.calls.append((name, arguments))
        assert len(self.calls) < AT_MOST
        if name == "append":
            if self.error is not None:
                raise self.error
            return None if self.has_ended else []
        return None

    @property
    def texts(self) -> list[str]:
        return ["".join(arguments[0]) for name, arguments in self.calls if name == "append"]

    @property
    def ends(self) -> list[Any]:
        return [arguments for name, arguments in self.calls if name == "end"]


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    standing = Database()
    monkeypatch.setattr(run_module.DATABASE, "run", standing)
    return standing


def answering(provider: DummyProvider, main: Callable[[Run], Coroutine[Any, Any, None]]) -> None:
    """Run `main` while the provider answers; it waits for the end itself, or cancels."""

    async def run() -> None:
        row = Generation(pk=1, name="a", topic="user.1.chat.a")
        answer = Run(row, ExitStack(), provider, "Why?")
        answer.start()
        await main(answer)
        answer.cancel()
        await answer.ended()
        assert RUNNING.get() == {}
        assert provider.open == 0

    constants = {"LLM_HEARTBEAT_SECONDS": 10.0, "LLM_BATCH_SECONDS": 0.5, "LLM_TOKEN_SECONDS": 1e6}
    with (
        override_settings(REALTIME=constants),
        asyncio.Runner(loop_factory=InstantLoop) as runner,
    ):
        runner.run(run())


def test_silent_model_costs_one_write_per_heartbeat(database):
    async def main(answer: Run) -> None:
        await asyncio.sleep(95)
        assert database.texts == ["one"] + [""] * 9
        assert database.ends == []

    answering(DummyProvider("one", hangs=True), main)


def test_text_that_comes_fast_is_written_in_batches(database):
    async def main(answer: Run) -> None:
        await answer.ended()
        assert database.texts[0] == "a"
        assert "".join(database.texts) == "a" * 20
        assert len(database.texts) <= 6  # two seconds in batches of half a second
        assert database.ends == [("done", {"stop_reason": "end"})]

    answering(DummyProvider(*["a"] * 20, delay=0.1), main)


def test_unexpected_error_ends_the_answer(database, caplog):
    async def main(answer: Run) -> None:
        database.error = RuntimeError("broken on purpose")
        await answer.ended()
        assert database.ends == [("error", {"detail": BROKEN})]
        assert "broken on purpose" in caplog.text

    answering(DummyProvider("a", hangs=True), main)


def test_error_of_the_provider_is_told(database):
    async def main(answer: Run) -> None:
        await answer.ended()
        assert database.texts == ["a"]
        assert database.ends == [("error", {"detail": "It is overloaded."})]

    answering(DummyProvider("a", error=ProviderUnavailable("It is overloaded.")), main)


def test_cancelled_answer_says_that_the_server_stops(database):
    async def main(answer: Run) -> None:
        await asyncio.sleep(1)
        answer.cancel()
        await answer.ended()
        assert database.ends == [("error", {"detail": STOPPING})]

    answering(DummyProvider("a", hangs=True), main)


def test_answer_that_another_process_has_ended_stops(database):
    async def main(answer: Run) -> None:
        await asyncio.sleep(1)
        database.has_ended = True
        await asyncio.sleep(10)
        assert answer._task is not None
        assert answer._task.done()

    answering(DummyProvider("a", hangs=True), main)
