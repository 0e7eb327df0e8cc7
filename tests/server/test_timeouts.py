"""What becomes due, and when; the timeouts themselves are met in test_limits."""

import asyncio
from typing import Any

import pytest

from realtime.server import timeouts as module
from realtime.server.limits import Limits
from realtime.server.timeouts import Watch


class Visitor:
    def __init__(self) -> None:
        self.visits = 0

    def visit(self, now: float) -> None:
        self.visits += 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.01)


async def test_each_is_visited_twice_per_ping_interval(quick: None) -> None:
    watch = Watch(Limits(), ping_interval=0.08)
    visitors = [Visitor() for _ in range(300)]
    for visitor in visitors:
        watch.add(visitor)
    for _ in range(8):
        await watch._sweep(0.0)
    assert {visitor.visits for visitor in visitors} == {2}


async def test_the_visited_are_spread_and_can_leave(quick: None) -> None:
    watch = Watch(Limits(), ping_interval=0.08)
    leaving, staying = Visitor(), Visitor()
    bucket = watch.add(leaving)
    assert watch.add(staying) != bucket
    watch.remove(leaving, bucket)
    for _ in range(4):
        await watch._sweep(0.0)
    assert (leaving.visits, staying.visits) == (0, 1)


async def test_an_error_does_not_end_the_watch(
    quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    class Bad(Visitor):
        def visit(self, now: float) -> None:
            super().visit(now)
            raise ValueError

    watch = Watch(Limits(), ping_interval=0.02)
    bad = Bad()
    watch.add(bad)
    watch.start(asyncio.get_running_loop())
    while bad.visits < 2:
        await asyncio.sleep(0.01)
    watch.stop()
    assert "Error in the watch" in caplog.text


async def test_only_what_is_due_is_looked_at() -> None:
    class Connection:
        def __init__(self) -> None:
            self.late = False

        def timed_out(self) -> None:
            self.late = True

    watch = Watch(Limits(header_timeout=10), ping_interval=20)
    old: Any = Connection()
    new: Any = Connection()
    watch.heads[old], watch.heads[new] = 0.0, 5.0
    await watch._sweep(11.0)
    assert (old.late, new.late, list(watch.heads)) == (True, False, [new])
