"""Calls that come while one is under way are made together, as the next.

A call that comes alone goes out at once. Under load the size of a batch finds itself: as many as
came during the last one. One trip to a thread, one transaction or one query serves all of them.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from .aio import spawn

A = TypeVar("A")
R = TypeVar("R")

Run: TypeAlias = Callable[[Sequence[A]], Awaitable[Sequence[R | BaseException]]]

LARGEST: Final = 100  # calls in one batch


class Batched(Generic[A, R]):
    """Awaitable per argument; `run` gets several and answers each with a result or an exception.

    If `run` itself fails, with a batch of more than one, each is tried by itself: one bad call must
    not take the others with it.
    """

    def __init__(self, run: Run[A, R]) -> None:
        self._run = run
        # By event loop: futures can't be shared between loops.
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue[A, R]] = (
            WeakKeyDictionary()
        )

    async def __call__(self, argument: A) -> R:
        """The result for `argument`; raises what the batch answered it with."""
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues[loop] = _Queue(self._run)
        return await queue.put(argument, loop.create_future())


class _Queue(Generic[A, R]):
    def __init__(self, run: Run[A, R]) -> None:
        self._run = run
        self._waiting: deque[tuple[A, asyncio.Future[R]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    def put(self, argument: A, future: "asyncio.Future[R]") -> "asyncio.Future[R]":
        self._waiting.append((argument, future))
        if self._worker is None:
            self._worker = spawn(self._work())
        return future

    async def _work(self) -> None:
        try:
            while self._waiting:
                size = min(LARGEST, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(size)]
                # Who has stopped waiting before it was begun wants nothing done.
                await self._serve([each for each in batch if not each[1].done()])
        finally:
            self._worker = None

    async def _serve(self, batch: list[tuple[A, "asyncio.Future[R]"]]) -> None:
        if not batch:
            return
        results: Sequence[R | BaseException]
        try:
            results = await self._run([argument for argument, _ in batch])
        except Exception as error:
            if len(batch) > 1:
                for each in batch:
                    await self._serve([each])
                return
            results = [error]
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
