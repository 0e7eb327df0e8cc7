"""`realtime.utils.background_loop`."""

import asyncio
import threading

import pytest
from django.core.exceptions import SynchronousOnlyOperation

from realtime.utils.aio import PerLoop
from realtime.utils.background_loop import BackgroundLoop


@pytest.fixture
def background():
    loop = BackgroundLoop()
    yield loop
    loop.stop()


async def where() -> tuple[int, int]:
    return id(asyncio.get_running_loop()), threading.get_ident()


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


async def test_in_an_event_loop_it_is_refused(background):
    with pytest.raises(SynchronousOnlyOperation):
        background.run(where)
