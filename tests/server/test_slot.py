"""The place of a worker, with workers of the test's own; with real ones: test_supervisor."""

import asyncio
import itertools
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from realtime.server import slot as slots
from realtime.server.slot import Slot
from realtime.server.workers import QUICK_DEATH, Backoff, Worker

from ..support.clock import InstantLoop

numbers = itertools.count(1)


class FakeWorker:
    """Runs until it is drained or dies, and says when it gets no more memory."""

    def __init__(self, site: "Site") -> None:
        self.site = site
        self.process = self
        self.pid = next(numbers)
        self.started = asyncio.get_running_loop().time()
        self.say_out_of_memory: Callable[[], object] = lambda: None
        self.grace: float | None = None  # that it was given to drain
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def when_out_of_memory(self, call: Callable[[], object]) -> None:
        self.say_out_of_memory = call

    async def wait(self, timeout: float) -> int:
        return await asyncio.shield(self._ended)

    async def end(self, grace: float, number: int) -> None:
        self.grace = grace
        await asyncio.sleep(self.site.drain_seconds)
        if not self._ended.done():
            self._ended.set_result(0)

    def die(self) -> None:
        self._ended.set_result(-9)


class Site:
    """A slot, and its workers. Starting one takes a second; some starts fail."""

    def __init__(self, **options: float) -> None:
        self.workers: list[FakeWorker] = []
        self.failures = 0
        self.starts: list[float] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.replacing = asyncio.Semaphore(1)
        self.drain_seconds = 2
        options = {"grace": 30, "worker_timeout": 1, "memory_grace": 10, **options}
        self.slot = Slot(self.start, self.begin, self.replacing, **options)

    async def start(self) -> Any:
        self.starts.append(asyncio.get_running_loop().time())
        await asyncio.sleep(1)
        if self.failures:
            self.failures -= 1
            return None
        self.workers.append(FakeWorker(self))
        return self.workers[-1]

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `main(site)` on a clock that does not wait, and keep the site's slot meanwhile."""

    def kill(worker: FakeWorker, number: int) -> None:
        if not worker._ended.done():
            worker.die()

    class LoopBackoff(Backoff):
        def ended(self, started: float) -> float:
            if asyncio.get_running_loop().time() - started < QUICK_DEATH:
                return self.failed()
            self._delay = 0.0
            return 0.0

    monkeypatch.setattr(slots, "send_signal", kill)
    monkeypatch.setattr(slots, "Backoff", LoopBackoff)

    def run(main: Callable[[Site], Coroutine[Any, Any, None]], **options: float) -> None:
        async def whole() -> None:
            site = Site(**options)
            assert await site.slot.renew(0)
            site.begin(site.slot.keep())
            await asyncio.sleep(10)
            await main(site)
            for task in site.tasks:
                task.cancel()
            for outcome in await asyncio.gather(*site.tasks, return_exceptions=True):
                assert not isinstance(outcome, Exception), outcome

        with asyncio.Runner(loop_factory=InstantLoop) as runner:
            runner.run(whole())

    return run


def test_what_could_not_be_started_is_not_in_the_slot(play: Any) -> None:
    async def main(site: Site) -> None:
        site.failures = 1
        assert not await site.slot.renew(0)
        assert site.slot.worker is site.workers[0]

    play(main)


def test_it_is_started_again_until_it_can(play: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main(site: Site) -> None:
        site.failures = 3
        site.workers[0].die()
        await asyncio.sleep(20)
        assert site.slot.worker is site.workers[1]
        assert caplog.text.count("The worker could not start; trying again in") == 3

    play(main)


def test_worker_without_memory_is_replaced_and_drained(play: Any) -> None:
    async def main(site: Site) -> None:
        sick = site.workers[0]
        sick.say_out_of_memory()
        await asyncio.sleep(0.9)
        assert site.slot.worker is sick  # it serves until the other one is ready
        await asyncio.sleep(10)
        assert site.slot.worker is site.workers[1]
        assert (len(site.workers), sick.grace) == (2, 10)

    play(main)


def test_its_time_to_drain_is_no_longer_than_that_of_any_worker(play: Any) -> None:
    async def main(site: Site) -> None:
        site.workers[0].say_out_of_memory()
        await asyncio.sleep(10)
        assert site.workers[0].grace == 5

    play(main, grace=5)


def test_worker_without_memory_that_drains_has_no_other_replaced(play: Any) -> None:
    async def main(site: Site) -> None:
        sick = site.workers[0]
        site.begin(site.slot.renew(30))  # type: ignore[arg-type]
        await asyncio.sleep(1.5)
        sick.say_out_of_memory()
        await asyncio.sleep(20)
        assert (len(site.workers), sick.grace) == (2, 30)

    play(main)


@pytest.mark.parametrize("moment", [0.0, 0.5, 1.5])
def test_worker_without_memory_that_dies_is_started_again_once(play: Any, moment: float) -> None:
    async def main(site: Site) -> None:
        sick = site.workers[0]
        sick.say_out_of_memory()
        await asyncio.sleep(moment)
        sick.die()
        await asyncio.sleep(30)
        assert len(site.workers) == 2
        assert site.slot.worker is site.workers[1]
        assert site.workers[1].grace is None

    play(main)


def test_worker_without_memory_that_is_replaced_by_hand_is_not_replaced_again(play: Any) -> None:
    async def main(site: Site) -> None:
        site.failures = 1  # of the first attempt
        site.workers[0].say_out_of_memory()
        await asyncio.sleep(1.1)
        assert await site.slot.renew(30)
        await asyncio.sleep(30)
        assert len(site.workers) == 2

    play(main)


def test_new_worker_is_watched_while_the_one_before_it_drains(play: Any) -> None:
    async def main(site: Site) -> None:
        site.drain_seconds = 20
        site.begin(site.slot.renew(30))  # type: ignore[arg-type]
        await asyncio.sleep(5)
        site.workers[1].die()
        await asyncio.sleep(5)
        assert site.slot.worker is site.workers[2]
        site.workers[2].say_out_of_memory()
        await asyncio.sleep(2)
        assert site.slot.worker is site.workers[3]

    play(main)


@pytest.mark.parametrize(("memory_grace", "is_killed"), [(10, True), (0, False)])
def test_a_worker_that_gets_no_more_memory_while_it_drains_is_killed_soon(
    play: Any, memory_grace: float, is_killed: bool
) -> None:
    async def main(site: Site) -> None:
        site.drain_seconds = 30
        renewing = asyncio.get_running_loop().create_task(site.slot.renew(30))  # as by SIGHUP
        await asyncio.sleep(5)
        old, new = site.workers
        old.say_out_of_memory()
        await asyncio.sleep(9)
        assert not old._ended.done()
        await asyncio.sleep(2)
        assert old._ended.done() is is_killed
        assert site.slot.worker is new
        assert await renewing

    play(main, memory_grace=memory_grace)


def test_a_worker_without_memory_waits_for_its_turn(play: Any) -> None:
    async def main(site: Site) -> None:
        await site.replacing.acquire()  # by another slot
        site.workers[0].say_out_of_memory()
        await asyncio.sleep(10)
        assert len(site.workers) == 1
        site.replacing.release()
        await asyncio.sleep(10)
        assert len(site.workers) == 2

    play(main)


def test_workers_that_never_have_memory_are_replaced_more_and_more_seldom(play: Any) -> None:
    async def main(site: Site) -> None:
        for _ in range(12):
            before = len(site.workers)
            site.workers[-1].say_out_of_memory()
            while len(site.workers) == before:
                await asyncio.sleep(0.1)
            await asyncio.sleep(3)  # until the one before has drained
        pauses = [round(later - earlier) for earlier, later in itertools.pairwise(site.starts)]
        assert pauses[-3:] == [pytest.approx(64, abs=2)] * 3
        assert sorted(pauses[1:]) == pauses[1:]

    play(main)


def test_worker_without_memory_is_tried_for_again(play: Any) -> None:
    async def main(site: Site) -> None:
        site.failures = 2
        site.workers[0].say_out_of_memory()
        await asyncio.sleep(20)
        assert len(site.workers) == 2

    play(main)


async def test_pipe_of_a_worker_that_has_drained_is_closed_whoever_holds_its_end() -> None:
    async def start() -> Worker:
        read, write = os.pipe()
        os.set_blocking(read, False)
        reads.append(read)
        writes.append(write)  # as what the worker has forked, and does not end with it
        return Worker(await asyncio.create_subprocess_exec("sleep", "600"), read)

    reads: list[int] = []
    writes: list[int] = []
    turn = asyncio.Semaphore()
    slot = Slot(start, lambda work: None, turn, grace=0, worker_timeout=0, memory_grace=0)
    try:
        assert await slot.renew(0)
        assert await slot.renew(0)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(reads[0])
        assert os.fstat(reads[1])
    finally:
        assert slot.worker is not None
        await slot.worker.end(0)
        for write in writes:
            os.close(write)
