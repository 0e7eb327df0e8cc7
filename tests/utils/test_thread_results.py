"""`realtime.utils.thread_results`: what a thread has found reaches the event loop."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from realtime.utils import thread_results
from realtime.utils.thread_results import ThreadResult, answer

T = TypeVar("T")


def in_thread(pool: ThreadPoolExecutor, call: Callable[[], T]) -> "asyncio.Future[T]":
    future = ThreadResult[T]()
    task = [(future, call)]
    pool.submit(lambda: answer(*task.pop()))  # which leaves nothing in the frames of the executor
    return asyncio.wrap_future(future)


async def test_a_result_and_an_error():
    def fail() -> None:
        raise ValueError("of the call")

    with ThreadPoolExecutor(1) as pool:
        assert await in_thread(pool, lambda: 1) == 1
        with pytest.raises(ValueError, match="of the call"):
            await in_thread(pool, fail)


async def test_a_thread_without_memory_tells_its_result_later(monkeypatch):
    loop, release = asyncio.get_running_loop(), threading.Event()
    tell, tries = loop.call_soon_threadsafe, []

    def without_memory(*arguments: Any) -> Any:
        tries.append(arguments)
        if len(tries) < 3:
            raise MemoryError
        return tell(*arguments)

    monkeypatch.setattr(loop, "call_soon_threadsafe", without_memory)
    monkeypatch.setattr(thread_results, "NO_MEMORY_SECONDS", 0.01)
    with ThreadPoolExecutor(1) as pool:
        waiting = in_thread(pool, release.wait)
        release.set()
        async with asyncio.timeout(10):
            assert await waiting
    assert len(tries) == 3


async def test_a_caller_that_leaves_takes_what_has_not_begun_with_it():
    release, begun = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        first, second = (in_thread(pool, call) for call in (release.wait, begun.set))
        second.cancel()
        await asyncio.sleep(0)
        release.set()
        assert await first
    assert not begun.is_set()


async def test_an_error_is_freed_at_once():
    """It refers to the frames that it came through: a circle would leave them to the collector."""

    class Mine(Exception):
        pass

    def fail() -> None:
        raise Mine

    async def ask(pool: ThreadPoolExecutor) -> "weakref.ref[Mine]":
        try:
            await in_thread(pool, fail)
        except Mine as error:
            return weakref.ref(error)
        raise AssertionError

    gc.disable()
    try:
        with ThreadPoolExecutor(1) as pool:
            error = await ask(pool)
            await asyncio.sleep(0.05)  # the thread lets go of it
            assert error() is None
    finally:
        gc.enable()
