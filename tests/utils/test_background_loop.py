"""`realtime.utils.background_loop`."""

import asyncio
import threading

import pytest
from django.core.exceptions import SynchronousOnlyOperation

from realtime.utils.aio import PerLoop
from realtime.utils.background_loop import BackgroundLoop

ANSWER_SECONDS = 5
SAID_BY_THE_THREAD = "ignore::pytest.PytestUnhandledThreadExceptionWarning"


@pytest.fixture
def background():
    loop = BackgroundLoop()
    yield loop
    loop.stop()


async def where() -> tuple[int, int]:
    return id(asyncio.get_running_loop()), threading.get_ident()


async def end() -> None:
    raise SystemExit


def wait_until_ended() -> None:
    for thread in threading.enumerate():
        if thread.name == "realtime-background":
            thread.join(ANSWER_SECONDS)


def answered_in_time(background: BackgroundLoop) -> bool:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(background.run(where)), daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    return bool(found)


def test_calls_from_all_threads_run_in_one_loop(background):
    found = [background.run(where)]
    thread = threading.Thread(target=lambda: found.append(background.run(where)))
    thread.start()
    thread.join()
    assert found[0] == found[1]
    assert found[0][1] != threading.get_ident()


def test_what_is_raised_comes_to_the_caller(background):
    async def fail(text: str) -> None:
        raise ValueError(text)

    with pytest.raises(ValueError, match="of mine"):
        background.run(fail, "of mine")


def test_what_lives_in_it_ends_with_it_and_a_new_one_begins(background):
    closed = []

    async def close(made: object) -> None:
        closed.append(made)

    made = PerLoop(object, close)

    async def get() -> object:
        return made.get()

    first = background.run(get)
    background.stop()
    assert closed == [first]
    assert background.run(get) is not first


def test_after_a_thread_that_could_not_start_the_next_call_is_answered(background, monkeypatch):
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"):
            background.run(where)
    assert answered_in_time(background)


@pytest.mark.filterwarnings(SAID_BY_THE_THREAD)
def test_after_a_loop_that_was_ended_from_within_a_new_one_answers(background):
    with pytest.raises(SystemExit):
        background.run(end)
    wait_until_ended()
    assert answered_in_time(background)


@pytest.mark.filterwarnings(SAID_BY_THE_THREAD)
def test_a_loop_that_was_ended_from_within_can_be_stopped(background):
    with pytest.raises(SystemExit):
        background.run(end)
    wait_until_ended()
    background.stop()


async def test_in_an_event_loop_it_is_refused(background):
    with pytest.raises(SynchronousOnlyOperation):
        background.run(where)
