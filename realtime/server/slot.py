"""The place of one worker: there is always one in it, as far as it can be started."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final

from realtime.server.counters import counters
from realtime.server.workers import Backoff, Worker, describe_exit, send_signal

logger = logging.getLogger("realtime.server.supervisor")

MEMORY_BACKOFF: Final = 60.0
"""Seconds: the longest delay before a worker without memory is replaced; it serves meanwhile."""

NO_START: Final = "The worker could not start; trying again in %.1f s."
NO_MORE_MEMORY: Final = (
    "Worker %d gets no more memory: another is started, and then this one has %g s to end."
)


class Slot:
    """Keep one worker running.

    `start` returns one that is ready, or None where none could be started. `begin` runs a coroutine
    as a task of the supervisor; `replacing` is held while another is started for a worker that gets
    no more memory. The other arguments are the supervisor's, too.
    """

    def __init__(
        self,
        start: Callable[[], Awaitable[Worker | None]],
        begin: Callable[[Coroutine[Any, Any, None]], None],
        replacing: asyncio.Semaphore,
        *,
        grace: float,
        worker_timeout: float,
        memory_grace: float,
    ) -> None:
        self.worker: Worker | None = None
        self._start = start
        self._begin = begin
        self._replacing = replacing
        self._watch: asyncio.Task[int] | None = None  # until its worker ends, or is replaced
        self._placing = asyncio.Lock()  # held from the start of a worker until it is in the slot
        self._worker_timeout = worker_timeout
        self._memory_grace = min(grace, memory_grace)
        self._backoff = Backoff()
        self._memory_backoff = Backoff(MEMORY_BACKOFF)

    async def renew(self, grace: float) -> bool:
        """Start a worker, then end the one before it, if any; return whether it could start.

        `grace` is the seconds that the one before may take to drain.
        """
        async with self._placing:
            new = await self._start()
            if new is None:
                return False
            old = self._place(new)
        if old is not None:
            await self._drain(old, grace)
        return True

    def _place(self, worker: Worker) -> Worker | None:
        """Put a worker into the slot, to be watched from now on; return the one before it."""
        old, self.worker = self.worker, worker
        if self._watch is not None:
            self._watch.cancel()
        return old

    async def keep(self) -> None:
        """Start another worker whenever one has ended, for as long as this process serves."""
        while True:
            worker = self.worker
            if worker is None:
                await self._start_again()
                continue
            if self._memory_grace:
                now = asyncio.get_running_loop().time()
                worker.when_out_of_memory(partial(self._replace_soon, worker, now))
            status = await self._watched(worker)
            if status is None:
                continue
            self.worker = None
            counters.worker_restarted()
            delay = self._backoff.ended(worker.started)
            again = f"again in {delay:.1f} s" if delay else "again"
            how = describe_exit(status)
            logger.warning("Worker %d ended (%s); starting %s.", worker.process.pid, how, again)
            await asyncio.sleep(delay)

    async def _watched(self, worker: Worker) -> int | None:
        """Return its exit status once it has ended; None as soon as another one is in the slot."""
        watch = asyncio.get_running_loop().create_task(worker.wait(self._worker_timeout))
        self._watch = watch
        try:
            await asyncio.wait([watch])
        finally:
            self._watch = None
            watch.cancel()
        return watch.result() if self.worker is worker else None

    async def _start_again(self) -> None:
        async with self._placing:
            if self.worker is not None:  # renew() was faster
                return
            self.worker = await self._start()
        if self.worker is None:
            await _wait(self._backoff)

    def _replace_soon(self, worker: Worker, since: float) -> None:
        if self.worker is not worker:  # it drains already
            return
        logger.error(NO_MORE_MEMORY, worker.process.pid, self._memory_grace)
        self._begin(self._replace(worker, self._memory_backoff.ended(since)))

    async def _replace(self, worker: Worker, delay: float) -> None:
        """Replace a worker as long as it is the slot's, once its turn has come."""
        await asyncio.sleep(delay)
        while self.worker is worker:
            async with self._replacing, self._placing:
                if self.worker is not worker:
                    return
                new = await self._start()
                if new is not None:
                    if self.worker is worker:  # else it has died, and is counted
                        counters.worker_restarted()
                    self._place(new)
            if new is not None:
                await self._drain(worker, self._memory_grace)
            else:
                await _wait(self._memory_backoff)

    async def _drain(self, worker: Worker, grace: float) -> None:
        """End a worker, for good also where this is cancelled."""
        if self._memory_grace:
            worker.when_out_of_memory(partial(self._kill_soon, worker))
        # SIGINT, without the delay: this host serves on, nobody has to look elsewhere.
        await worker.end(grace, signal.SIGINT)

    def _kill_soon(self, worker: Worker) -> None:
        """Leave a worker that drains no more time than one without memory has."""
        loop = asyncio.get_running_loop()
        loop.call_later(self._memory_grace, send_signal, worker.process, signal.SIGKILL)


async def _wait(backoff: Backoff) -> None:
    delay = backoff.failed()
    logger.error(NO_START, delay)
    await asyncio.sleep(delay)
