"""The results of threads, of which their callers are told though memory may be short."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, TypeVar

T = TypeVar("T")

NO_MEMORY_SECONDS: Final = 0.1  # until a callback that had no memory is called again


class ThreadResult(Future[T]):
    """A future whose callbacks are called again where they find no memory.

    The callback of `asyncio.wrap_future` tells the event loop. One that fails is logged, and the
    caller, with all that wait for it, would wait for good: a thread that has just run out of memory
    has none for that either.
    """

    def add_done_callback(self, fn: Callable[[Future[T]], Any]) -> None:
        super().add_done_callback(partial(_call, fn))


def _call(callback: Callable[[Future[T]], Any], future: Future[T]) -> None:
    while True:
        try:
            callback(future)
        except MemoryError:
            time.sleep(NO_MEMORY_SECONDS)
        else:
            return


def answer(future: Future[T], call: Callable[[], T]) -> None:
    """Make a call, and give its result, or what it raises, to the future."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
        del future  # or it is alive as long as its own exception, which holds this frame
    else:
        future.set_result(result)
