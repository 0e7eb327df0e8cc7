"""What becomes due, and when; the timeouts themselves are met in test_limits."""

import asyncio
import contextlib
import time
from typing import Any

import pytest

from realtime.server import timeouts as module
from realtime.server.limits import Limits
from realtime.server.timeouts import Timeouts, cancel_after


class Counter:
    def __init__(self) -> None:
        self.checks = 0

    def check(self, now: float) -> None:
        self.checks += 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.01)


async def test_each_is_checked_twice_per_ping_interval(quick: None) -> None:
    timeouts = Timeouts(Limits(), ping_interval=0.08)
    counters = [Counter() for _ in range(300)]
    for counter in counters:
        timeouts.add(counter)
    for _ in range(8):
        await timeouts._sweep(0.0)
    assert {counter.checks for counter in counters} == {2}


async def test_the_checked_are_spread_and_can_leave(quick: None) -> None:
    timeouts = Timeouts(Limits(), ping_interval=0.08)
    leaving, staying = Counter(), Counter()
    turn = timeouts.add(leaving)
    assert timeouts.add(staying) != turn
    timeouts.remove(leaving, turn)
    for _ in range(4):
        await timeouts._sweep(0.0)
    assert (leaving.checks, staying.checks) == (0, 1)


async def test_an_error_does_not_end_the_sweeps(
    quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    class Bad(Counter):
        def check(self, now: float) -> None:
            super().check(now)
            raise ValueError

    timeouts = Timeouts(Limits(), ping_interval=0.02)
    bad = Bad()
    timeouts.add(bad)
    timeouts.start(asyncio.get_running_loop())
    while bad.checks < 2:
        await asyncio.sleep(0.01)
    timeouts.stop()
    assert "Error in the timeouts" in caplog.text


async def test_only_what_is_due_is_checked() -> None:
    class Connection:
        def __init__(self) -> None:
            self.late = False

        def timed_out(self) -> None:
            self.late = True

    timeouts = Timeouts(Limits(header_timeout=10), ping_interval=20)
    old: Any = Connection()
    new: Any = Connection()
    timeouts.heads[old], timeouts.heads[new] = 0.0, 5.0
    await timeouts._sweep(11.0)
    assert (old.late, new.late, list(timeouts.heads)) == (True, False, [new])


async def test_a_task_that_does_not_end_in_time_is_cancelled_until_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.05)
    swallowed = 0

    async def swallow() -> None:
        nonlocal swallowed
        while swallowed < 2:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            swallowed += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(swallow())
    cancel_after(0.05, task)
    await asyncio.sleep(0.02)
    assert not task.cancelling()
    async with asyncio.timeout(15):
        await asyncio.wait([task])
    assert task.cancelled()
    assert swallowed == 2


async def test_a_task_that_ends_in_time_is_not_cancelled() -> None:
    done = asyncio.create_task(asyncio.sleep(0.01, "result"))
    cancel_after(0.05, done)
    assert await done == "result"
    await asyncio.sleep(0.1)
    assert not done.cancelling()


async def test_an_application_takes_notice_before_it_is_cancelled() -> None:
    """Even after a loop stood still: Django's handler leaves its view behind otherwise."""
    disconnected = asyncio.Event()
    view = asyncio.create_task(asyncio.Event().wait())

    async def handler() -> None:
        listening = asyncio.create_task(disconnected.wait())
        await asyncio.wait([listening, view], return_when=asyncio.FIRST_COMPLETED)
        view.cancel()
        await asyncio.wait([view])

    task = asyncio.create_task(handler())
    await asyncio.sleep(0.01)
    disconnected.set()
    cancel_after(0.01, task)
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        pass
    async with asyncio.timeout(15):
        await asyncio.wait([view])
        await task
