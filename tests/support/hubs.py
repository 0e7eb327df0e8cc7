"""Readers of a feed, and a loop to run a hub on."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from realtime.events.event import Event

from .clients import InstantLoop


class Reader:
    """Reads a feed as a subscription does, and remembers what it was given."""

    def __init__(self) -> None:
        self.got: list[Event] = []
        self.wakes = 0

    def deliver(self, event: Event) -> None:
        self.got.append(event)

    def wake(self) -> None:
        self.wakes += 1

    @property
    def offsets(self) -> list[int]:
        return [event.offset for event in self.got]


def instantly(main: Coroutine[Any, Any, None]) -> None:
    """Run on a clock that does not wait; nothing may be left running at the end."""

    async def run() -> None:
        await main
        await asyncio.sleep(10)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=InstantLoop) as runner:
        runner.run(run())


async def turns(count: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)
