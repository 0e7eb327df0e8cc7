"""A queue for each topic that has to be waited for, so that no topic waits for another."""

import asyncio
from collections.abc import Sequence
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from ..conf import settings
from ..exceptions import OutcomeUnknown
from ..utils.aio import PerLoop
from ..utils.batching import Batcher, Run

A = TypeVar("A")
R = TypeVar("R")


class TopicQueues(Generic[A, R]):
    """Queues whose calls are batched; half of `DATABASE_THREADS` of them are at work at once.

    The others, and what can be stored at once, keep the other half.
    """

    def __init__(self, run: Run[A, R]) -> None:
        self._run = run
        # Each is held by the calls that wait in it.
        self._batchers: WeakValueDictionary[str, Batcher[A, R]] = WeakValueDictionary()
        self._places = PerLoop(lambda: asyncio.Semaphore(max(1, settings.DATABASE_THREADS // 2)))

    async def put(self, topic: str, argument: A) -> R:
        """Return the result for `argument`, which waits for those of its topic alone."""
        batcher = self._batchers.get(topic)
        if batcher is None:
            batcher = self._batchers[topic] = Batcher(self._work, unanswered=OutcomeUnknown)
        return await batcher(argument)

    async def _work(self, batch: Sequence[A]) -> Sequence[R | BaseException]:
        async with self._places.get():
            return await self._run(batch)
