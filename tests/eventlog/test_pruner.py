"""`realtime.eventlog.pruner`: retention by a process that serves."""

import asyncio
from contextlib import suppress

import pytest

from realtime.eventlog.pruner import Pruner

from ..support.clients import eventually
from ..support.fakes import FaultyLog
from ..support.hubs import stage


class PrunedLog(FaultyLog):
    def __init__(self) -> None:
        super().__init__()
        self.pruned = 0

    def prune(self) -> dict[str, int]:
        self.pruned += 1
        if self.pruned == 1:
            raise RuntimeError("failed on purpose")
        return {}


async def test_it_prunes_again_and_again_though_the_log_fails(caplog):
    with stage(log=PrunedLog()) as (_, log):
        running = asyncio.create_task(Pruner().run(0.01))
        await eventually(lambda: log.pruned >= 3)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert "Can't prune the log" in caplog.text


async def test_the_time_counts_on_while_nobody_is_served(monkeypatch: pytest.MonkeyPatch):
    pruner, slept = Pruner(), []
    now = 1_000.0
    monkeypatch.setattr("realtime.eventlog.pruner.time.monotonic", lambda: now)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        raise asyncio.CancelledError

    monkeypatch.setattr("realtime.eventlog.pruner.asyncio.sleep", sleep)
    for later in (0.0, 70.0, 40.0):
        now += later
        with suppress(asyncio.CancelledError):
            await pruner.run(100.0)
    assert slept == [100.0, 30.0, 0.0]
