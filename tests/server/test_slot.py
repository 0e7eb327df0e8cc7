"""The place of a worker; with real ones: test_supervisor."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from realtime.server import slot as slots
from realtime.server.slot import Slot


async def test_what_could_not_be_started_is_not_in_the_slot() -> None:
    async def start() -> None:
        return None

    def begin(work: Coroutine[Any, Any, None]) -> None:
        raise AssertionError

    slot = Slot(start, begin, grace=1, worker_timeout=1, memory_grace=1)
    assert not await slot.renew(0)
    assert slot.worker is None


async def test_it_is_started_again_until_it_can(caplog: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(slots, "Backoff", lambda: type("", (), {"failed": lambda self: 0.0})())
    started = asyncio.Event()
    failures = 3

    class Started:
        async def wait(self, timeout: float) -> int:
            started.set()
            await asyncio.sleep(60)
            return 0

    async def start() -> Any:
        nonlocal failures
        failures -= 1
        return Started() if failures < 0 else None

    slot = Slot(start, lambda work: None, grace=1, worker_timeout=1, memory_grace=1)
    keeping = asyncio.create_task(slot.keep())
    await asyncio.wait_for(started.wait(), 20)
    keeping.cancel()
    assert caplog.text.count("The worker could not start; trying again in 0.0 s.") == 3
