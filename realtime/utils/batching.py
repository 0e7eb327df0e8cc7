"""Batch concurrent calls: those that come while one is under way are made together, as the next.

A call that comes alone goes out at once. Under load the size of a batch finds itself: as many as
came during the last one. One trip to a thread, one transaction or one query serves all of them.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeAlias, TypeVar

from .aio import PerLoop, spawn

A = TypeVar("A")
R = TypeVar("R")

Run: TypeAlias = Callable[[Sequence[A]], Awaitable[Sequence[R | BaseException]]]

Unanswered: TypeAlias = Callable[[], Exception]

MAX_CALLS: Final = 100  # in one batch


def _no_memory() -> Exception:
    return MemoryError("A batch of calls ended without an answer")


class Batcher(Generic[A, R]):
    """An async function of one argument, whose calls are made in batches.

    `run` gets the arguments of a batch and answers each with a result or an exception. What `run`
    itself raises is raised to all callers of the batch: it is never repeated, since only `run` can
    know what it has done already. Where it gives no answer, because it was cancelled or had no
    memory, its callers get what `unanswered` makes. With `repeat_alone`, for what only reads, each
    call of a batch that failed is made once more by itself: one bad call does not take the others
    with it.

    A batch waits up to `linger` seconds for as many calls as there were at the end of the last one.
    Callers that are answered together call again at nearly the same time: without that the first
    of them would have a batch of its own, and the others the next.

    Where `run` waits for another machine, `at_once` batches may be under way: this process has
    work to do meanwhile.
    """

    def __init__(
        self,
        run: Run[A, R],
        *,
        repeat_alone: bool = False,
        linger: float = 0.0,
        at_once: int = 1,
        unanswered: Unanswered = _no_memory,
    ) -> None:
        # Futures can't be shared between loops.
        self._queues = PerLoop[_Queue[A, R]](
            lambda: _Queue(run, repeat_alone, linger, at_once, unanswered)
        )

    async def __call__(self, argument: A) -> R:
        """Return the result for `argument`; raise what the batch answered it with."""
        return await self._queues.get().put(argument, asyncio.get_running_loop().create_future())


class _Queue(Generic[A, R]):
    def __init__(
        self,
        run: Run[A, R],
        repeat_alone: bool,
        linger: float,
        at_once: int,
        unanswered: Unanswered,
    ) -> None:
        self._run = run
        self._unanswered = unanswered
        self._repeat_alone = repeat_alone
        self._linger = linger
        self._at_once = at_once
        self._expected = 0  # calls, as many as there were lately
        self._have_come: asyncio.Future[None] | None = None  # while a batch waits for them
        self._waiting: deque[tuple[A, asyncio.Future[R]]] = deque()
        self._workers: set[asyncio.Task[None]] = set()

    def put(self, argument: A, future: "asyncio.Future[R]") -> "asyncio.Future[R]":
        # One that was just started for another call takes this one too.
        if not self._workers or (len(self._workers) < self._at_once and not self._waiting):
            self._workers.add(spawn(self._work()))
        self._waiting.append((argument, future))
        if self._have_come is not None and len(self._waiting) >= self._expected:
            _stop_waiting(self._have_come)
        return future

    async def _work(self) -> None:
        try:
            while self._waiting:
                if self._linger and len(self._waiting) < self._expected:
                    await self._wait_for_others()
                size = min(MAX_CALLS, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(size)]
                # Skip calls whose caller was cancelled before this batch started.
                try:
                    await self._serve([call for call in batch if not call[1].done()])
                finally:
                    _refuse([future for _, future in batch if not future.done()], self._unanswered)
                self._expected = min(MAX_CALLS, size + len(self._waiting))
        finally:
            self._workers.discard(asyncio.current_task())
            if not self._workers:  # it has failed, if any wait: nobody else would take them
                _refuse([future for _, future in self._waiting if not future.done()], _no_memory)
                self._waiting.clear()

    async def _wait_for_others(self) -> None:
        loop = asyncio.get_running_loop()
        self._have_come = loop.create_future()
        timer = loop.call_later(self._linger, _stop_waiting, self._have_come)
        try:
            await self._have_come
        finally:
            timer.cancel()
            self._have_come = None

    async def _serve(self, batch: list[tuple[A, "asyncio.Future[R]"]]) -> None:
        if not batch:
            return
        results: Sequence[R | BaseException]
        try:
            results = await self._run([argument for argument, _ in batch])
        except Exception as error:
            if self._repeat_alone and len(batch) > 1:
                for call in batch:
                    await self._serve([call])
                return
            results = [_answer(error, self._unanswered)] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)


def _answer(error: Exception, unanswered: Unanswered) -> Exception:
    return unanswered() if isinstance(error, MemoryError) else error


def _refuse(futures: "Sequence[asyncio.Future[R]]", unanswered: Unanswered) -> None:
    """Answer those that a batch has not: it was cancelled, or had no memory for its answers."""
    for future in futures:
        future.set_exception(unanswered())


def _stop_waiting(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
