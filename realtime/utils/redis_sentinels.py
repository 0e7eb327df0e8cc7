"""Ask several servers of Redis that know the same, where any of them may be away."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from redis.asyncio import Redis, Sentinel
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import NoBackoff

from .aio import cancel_and_wait, spawn

T = TypeVar("T")


async def first_answer(calls: Sequence[Callable[[], Coroutine[Any, Any, T]]], seconds: float) -> T:
    """Return what the first call to succeed returns; raise what the last to fail has raised.

    Each begins when the one before it has failed, or has been silent for its part of `seconds`,
    and goes on meanwhile.
    """
    waiting, running = deque(calls), set[asyncio.Task[T]]()
    failure: BaseException | None = None
    try:
        while waiting or running:
            if waiting:
                running.add(spawn(waiting.popleft()()))
            done, running = await asyncio.wait(
                running,
                timeout=seconds / len(calls) if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            failures = [task.exception() for task in done]
            for task, error in zip(done, failures, strict=True):
                if error is None:
                    return task.result()
                failure = error
    finally:
        await cancel_and_wait(*running)
    assert failure is not None
    raise failure


class Sentinels(Sentinel):
    """Sentinels, all of which are asked within half of the seconds that each may take."""

    def __init__(
        self,
        addresses: Sequence[tuple[str, int]],
        seconds: float,
        own: Mapping[str, Any],
        **options: Any,
    ) -> None:
        limits = {
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
            "retry": Retry(NoBackoff(), 0),
            "driver_info": None,  # which would be read from the disk
        }
        sentinel_options = {**limits, **own, "protocol": 2}
        super().__init__(addresses, sentinel_kwargs=sentinel_options, **options)  # type: ignore[no-untyped-call]
        self._seconds = seconds

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return where the first one that knows says the server is; raise ConnectionError."""
        calls = [partial(self._ask, each, service_name) for each in self.sentinels]
        return await first_answer(calls, self._seconds / 2)

    async def aclose(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(each.aclose() for each in self.sentinels), return_exceptions=True)

    async def _ask(self, sentinel: Redis, name: str) -> tuple[str, int]:
        states: Any = await sentinel.sentinel_masters()
        state = states.get(name)
        if not state or not self.check_master_state(state, name):
            raise MasterNotFoundError(f"{sentinel} knows no server that is {name!r} now")
        return state["ip"], state["port"]
