"""Readers of a feed, and a loop to run a hub on."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from realtime.events.event import Event
from realtime.events.position import Position

from .clients import InstantLoop


class Reader:
    """Reads a feed as a subscription does, and remembers what it was given."""

    def __init__(self) -> None:
        self.got: list[Event] = []
        self.wakes = 0

    def notify(self, events: Sequence[Event]) -> None:
        self.got += events
        self.wakes += not events

    def unsynced(self, position: Position, events: Sequence[Event]) -> None:
        raise NotImplementedError

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
