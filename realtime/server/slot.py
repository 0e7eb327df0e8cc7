"""The place of one worker: there is always one in it, as far as it can be started."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final

from realtime.server.counters import counters
from realtime.server.workers import Backoff, Worker, describe_exit, end

logger = logging.getLogger("realtime.server.supervisor")

NO_START: Final = "The worker could not start; trying again in %.1f s."
NO_MORE_MEMORY: Final = (
    "Worker %d gets no more memory: another is started, and then it has %g s to end "
    "(--memory-grace)."
)


class Slot:
    """Keep a worker running that `start` returns, or None where it could not.

    `begin` has a task of the supervisor's run. The other arguments are the supervisor's, too.
    """

    def __init__(
        self,
        start: Callable[[], Awaitable[Worker | None]],
        begin: Callable[[Coroutine[Any, Any, None]], None],
        *,
        grace: float,
        worker_timeout: float,
        memory_grace: float,
    ) -> None:
        self.worker: Worker | None = None
        self._start = start
        self._begin = begin
        self._grace = grace
        self._worker_timeout = worker_timeout
        self._memory_grace = memory_grace
        self._backoff = Backoff()

    async def renew(self, grace: float) -> bool:
        """Start a worker, then end the one before it, if any; return whether it could start.

        `grace` is the seconds that the one before may take to drain.
        """
        new = await self._start()
        if new is None:
            return False
        old, self.worker = self.worker, new
        if old is not None:
            # SIGINT, without the delay: this host serves on, nobody has to look elsewhere.
            try:
                await end(old.process, grace, signal.SIGINT)
            except asyncio.CancelledError:
                await end(old.process, grace, signal.SIGINT)
                raise
        return True

    async def keep(self) -> None:
        """Start another worker whenever one has ended, for as long as this process serves."""
        while True:
            worker = self.worker
            if worker is None:
                await self._start_again()
                continue
            if self._memory_grace:
                worker.on_no_memory = partial(self._replace, worker)
            status = await worker.wait(self._worker_timeout)
            if self.worker is not worker:
                continue  # renew() put another one here
            self.worker = None
            counters.worker_restarted()
            delay = self._backoff.ended(worker.started)
            again = f"again in {delay:.1f} s" if delay else "again"
            how = describe_exit(status)
            logger.warning("Worker %d ended (%s); starting %s.", worker.process.pid, how, again)
            await asyncio.sleep(delay)

    async def _start_again(self) -> None:
        worker = await self._start()
        if self.worker is not None:  # renew() was faster
            if worker is not None:
                await end(worker.process, self._grace)
            return
        self.worker = worker
        if worker is None:
            await self._wait()

    async def _wait(self) -> None:
        delay = self._backoff.failed()
        logger.error(NO_START, delay)
        await asyncio.sleep(delay)

    def _replace(self, worker: Worker) -> None:
        """Replace one that gets no more memory, when the one before it was not as short-lived."""
        logger.error(NO_MORE_MEMORY, worker.process.pid, self._memory_grace)
        counters.worker_restarted()

        async def replace() -> None:
            await asyncio.sleep(self._backoff.ended(worker.started))
            while not await self.renew(min(self._grace, self._memory_grace)):
                await self._wait()

        self._begin(replace())
