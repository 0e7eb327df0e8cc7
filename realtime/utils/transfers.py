"""The few threads in which responses read: files, pages of rows, archives.

They are not those of the event log: a slow query of an export must not keep an event waiting. As
there, nothing is per stream. A piece is read in whichever thread is free, and between two pieces,
as long as a client takes its time, nothing is held.
"""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import Error as DatabaseError
from django.db import connections

from ..conf import settings

P = ParamSpec("P")
T = TypeVar("T")

_lock = threading.Lock()
_executor: ThreadPoolExecutor | None = None


def _forget() -> None:
    """In a process that was forked off there are no threads, whatever the executor believes."""
    global _lock, _executor
    _lock, _executor = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def transfer_threads() -> ThreadPoolExecutor:
    """The process's `TRANSFER_THREADS` threads."""
    global _executor
    with _lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(settings.TRANSFER_THREADS, "realtime-transfer")
        return _executor


async def in_transfer_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in one of the threads. A connection that it took from a pool goes back."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(
        transfer_threads(), lambda: release_after(lambda: function(*args, **kwargs))
    )


def release_after(function: Callable[[], T]) -> T:
    """Call `function`; then a connection from a pool goes back, and a broken one is closed."""
    failed = False
    try:
        return function()
    except DatabaseError:
        failed = True
        raise
    finally:
        for connection in connections.all(initialized_only=True):
            # Unpooled ones are kept for the next caller: opening one costs more than a page.
            if failed or getattr(connection, "pool", None) is not None:
                connection.close()


async def in_pieces(iterator: Iterator[bytes], size: int) -> AsyncGenerator[bytes, None]:
    """What a synchronous iterator makes, in pieces of about `size` bytes, each made in one of the
    threads. The iterator is closed at the end, or when the client has left."""
    source = _Source(iterator)
    try:
        while piece := await in_transfer_thread(source.take, size):
            yield piece
    finally:
        transfer_threads().submit(release_after, source.close)


class _Source:
    """An iterator that one thread at a time may touch: cancelling the coroutine that waits for a
    thread does not stop the thread."""

    def __init__(self, iterator: Iterator[bytes]) -> None:
        self._iterator = iterator
        self._lock = threading.Lock()

    def take(self, size: int) -> bytes:
        with self._lock:
            parts: list[bytes] = []
            for part in self._iterator:
                parts.append(part)
                size -= len(part)
                if size <= 0:
                    break
            return b"".join(parts)

    def close(self) -> None:
        with self._lock:
            close = getattr(self._iterator, "close", None)
            if close is not None:
                close()
