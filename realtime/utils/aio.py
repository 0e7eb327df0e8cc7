"""What asyncio lacks: tasks of their own, cancellation that arrives, one object for each loop."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any, Final, Generic, TypeVar
from weakref import WeakKeyDictionary

logger = logging.getLogger("realtime.tasks")

T = TypeVar("T")

AGAIN_SECONDS: Final = 10.0
"""Seconds that a cancelled task gets for its `finally` before it is cancelled again."""

_running: set[asyncio.Task[Any]] = set()
_waiting: set[AsyncGenerator[None, None]] = set()
_at_end: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Callable[[], Awaitable[None]]]] = (
    WeakKeyDictionary()
)


def spawn(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task in an empty context, so that it keeps nothing of the request alive.

    Not its user, not its language, and not the thread that Django gave it.
    """
    task = asyncio.get_running_loop().create_task(coroutine, context=Context())
    # The loop itself keeps only weak references to tasks.
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


async def shielded(task: asyncio.Task[T]) -> T:
    """Return what a task returns; it goes on where this is cancelled.

    As `asyncio.shield`, but for what the task raises after that: it is nobody's, and not reported.
    """
    task.add_done_callback(_see)
    try:
        await asyncio.wait([task])
        return task.result()
    finally:
        del task  # which keeps what it raises, and that this frame


def _see(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # seen, so that asyncio does not report it


async def cancel_and_wait(*tasks: asyncio.Task[Any]) -> None:
    """Cancel `tasks` and wait until they have ended; what they raise is not raised here.

    Being cancelled itself, it cancels them again at once, and passes that on when they have ended.
    """
    # Before Python 3.12, `asyncio.wait_for` swallows a cancellation that comes in the very turn in
    # which what it waits for ends: the task goes on. Redis' client writes every command through it,
    # so a task that talks to Redis, ours or a user's, may have to be cancelled again.
    pending = set(tasks)
    cancelled: asyncio.CancelledError | None = None
    while pending:
        for task in pending:
            task.cancel()
        try:
            await asyncio.wait(pending, timeout=AGAIN_SECONDS)
        except asyncio.CancelledError as error:
            # The server cancels an application again that has not ended. What left here would
            # leave the tasks to themselves.
            cancelled = error
        pending = {task for task in pending if not task.done()}
    for task in tasks:
        _see(task)
    if cancelled is not None:
        raise cancelled


async def aclose(iterator: AsyncIterator[Any]) -> None:
    """Close an async iterator, if it can be closed as a generator can."""
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()


class PerLoop(Generic[T]):
    """One object for each event loop, made when it is first asked for there.

    `aclose` gets it when its loop is shut down, while that can still do input and output. The last
    to be made is closed first: what was begun later may need what was there before.
    """

    def __init__(
        self, factory: Callable[[], T], aclose: Callable[[T], Awaitable[None]] | None = None
    ) -> None:
        self._factory = factory
        self._aclose = aclose
        self._made: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()

    def get(self) -> T:
        """Return the running loop's."""
        loop = asyncio.get_running_loop()
        made = self._made.get(loop)
        if made is None:
            self._forget_closed()
            made = self._made[loop] = self._factory()
            if self._aclose is not None:
                _at_loop_end(self._close)
        return made

    def _forget_closed(self) -> None:
        # A weak key is not enough: what was made may hold its loop, as futures and locks do.
        for reference in self._made.keyrefs():  # a copy: other threads have loops as well
            loop = reference()
            if loop is not None and loop.is_closed():
                self._made.pop(loop, None)

    async def _close(self) -> None:
        assert self._aclose is not None
        await self._aclose(self._made.pop(asyncio.get_running_loop()))


def _at_loop_end(callback: Callable[[], Awaitable[None]]) -> None:
    # `asyncio.run`, uvicorn and this package's server all end with `loop.shutdown_asyncgens()`,
    # which closes the generators that are suspended; ours is, and waits for that alone. Stock
    # Daphne just stops.
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
