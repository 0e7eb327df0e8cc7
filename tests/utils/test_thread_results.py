"""`realtime.utils.thread_results`: what a thread has found reaches the event loop."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from realtime.utils import thread_results
from realtime.utils.thread_results import wrap


async def test_a_result_and_an_error():
    def fail() -> None:
        raise ValueError("of the call")

    with ThreadPoolExecutor(1) as pool:
        assert await wrap(pool.submit(lambda: 1)) == 1
        with pytest.raises(ValueError, match="of the call"):
            await wrap(pool.submit(fail))


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
        waiting = wrap(pool.submit(release.wait))
        release.set()
        async with asyncio.timeout(10):
            assert await waiting
    assert len(tries) == 3


async def test_a_caller_that_leaves_takes_what_has_not_begun_with_it():
    release, begun = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        first, second = (wrap(pool.submit(call)) for call in (release.wait, begun.set))
        second.cancel()
        await asyncio.sleep(0)
        release.set()
        assert await first
    assert not begun.is_set()


async def test_a_call_that_is_given_up_is_cancelled_for_its_caller():
    future = Future[None]()
    waiting = wrap(future)
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_a_loop_that_is_closed_is_told_nothing():
    async def ask() -> Future[int]:
        future = Future[int]()
        wrap(future)
        return future

    asyncio.run(ask()).set_result(1)


async def test_an_error_is_freed_at_once():
    """It refers to the frames that it came through: a circle would leave them to the collector."""

    class Mine(Exception):
        pass

    def fail() -> None:
        raise Mine

    async def ask(pool: ThreadPoolExecutor) -> "weakref.ref[Mine]":
        try:
            await wrap(pool.submit(fail))
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
