"""The results of threads, as an event loop awaits them."""

import asyncio
import time
from concurrent.futures import Future
from functools import partial
from typing import Final, TypeVar

T = TypeVar("T")

NO_MEMORY_SECONDS: Final = 0.1  # until a thread that has none tries again to tell its result


def wrap(future: "Future[T]") -> "asyncio.Future[T]":
    """Return what an event loop awaits a thread's result by, as `asyncio.wrap_future` does.

    But one that comes: a thread that runs out of memory has none to tell the loop so, and the
    caller, with all that wait for it, would wait for good.
    """
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[T] = loop.create_future()
    waiting.add_done_callback(lambda ended: ended.cancelled() and future.cancel())
    future.add_done_callback(partial(_tell, loop, waiting))
    return waiting


def _tell(
    loop: asyncio.AbstractEventLoop, waiting: "asyncio.Future[T]", future: "Future[T]"
) -> None:
    while True:
        try:
            loop.call_soon_threadsafe(_settle, waiting, future)
        except MemoryError:
            time.sleep(NO_MEMORY_SECONDS)
        except RuntimeError:  # the loop is closed
            return
        else:
            return


def _settle(waiting: "asyncio.Future[T]", future: "Future[T]") -> None:
    if waiting.done():
        return
    if future.cancelled():
        waiting.cancel()
    elif (error := future.exception()) is not None:
        waiting.set_exception(error)
    else:
        waiting.set_result(future.result())
