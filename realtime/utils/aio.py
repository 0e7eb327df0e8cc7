"""Background tasks that outlive the request that started them."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

logger = logging.getLogger("realtime.tasks")

T = TypeVar("T")

_running: set[asyncio.Task[Any]] = set()
_waiting: set[AsyncGenerator[None, None]] = set()
_at_end: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Callable[[], Awaitable[None]]]] = (
    WeakKeyDictionary()
)


def spawn(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task in an empty context, so that it keeps nothing of the request alive: not its
    user, not its language, and not the thread that Django gave it."""
    task = asyncio.get_running_loop().create_task(coroutine, context=Context())
    # The loop itself keeps only weak references to tasks.
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


def at_loop_end(callback: Callable[[], Awaitable[None]]) -> None:
    """Await `callback` when the running loop is shut down, while it can still do input and output.

    The last to be registered comes first: what was begun later may need what was there before.

    `asyncio.run`, uvicorn and this package's server all end with `loop.shutdown_asyncgens()`, which
    closes the generators that are suspended; ours is, and waits for that alone. Stock Daphne just
    stops.
    """
    loop = asyncio.get_running_loop()
    if loop in _at_end:
        _at_end[loop].append(callback)
        return
    callbacks = _at_end[loop] = [callback]

    async def wait() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            _waiting.discard(waiting)
            while callbacks:
                try:
                    await callbacks.pop()()
                except Exception:
                    logger.exception("A callback failed at the end of the event loop")
            _at_end.pop(loop, None)

    waiting = wait()
    _waiting.add(waiting)
    with suppress(StopIteration):
        waiting.asend(None).send(None)  # up to the yield, where nothing is awaited yet
