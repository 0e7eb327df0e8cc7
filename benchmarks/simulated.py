"""What stands between simulated processes, and counts what it is asked for."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from realtime.conf import settings
from realtime.delivery.bus import envelope
from realtime.eventlog.base import Changes, Page
from realtime.eventlog.memory import MemoryLog
from realtime.events.position import Position
from realtime.processes.registry import Beat
from tests.support.fakes import FakeLayer, Noise

current: Final[ContextVar[Any]] = ContextVar("process")
"""The process whose task runs now: all are in one event loop."""


class CountedLog(MemoryLog):
    """The log of all processes; its calls are counted, and take a few milliseconds."""

    def __init__(self, calls: Counter[str], chance: random.Random) -> None:
        names = iter(range(36**8))
        super().__init__(lambda: f"{next(names):08}")
        self._calls = calls
        self._chance = chance

    async def heads(self, topics: Sequence[str]) -> Mapping[str, Position]:
        self._calls["topics"] += len(topics)
        await self._ask("heads")
        return await super().heads(topics)

    async def changes(self, mark: Any, limit: int) -> Changes:
        await self._ask("changes")
        return await super().changes(mark, limit)

    async def read(self, topic: str, after: Position, limit: int) -> Page:
        await self._ask("read")
        return await super().read(topic, after, limit)

    async def _ask(self, what: str) -> None:
        self._calls[what] += 1
        await asyncio.sleep(self._chance.uniform(0.001, 0.01))


class LossyLayer(FakeLayer):
    """The channel layer of all processes; what it is asked for is counted."""

    def __init__(self, calls: Counter[str], seed: int) -> None:
        super().__init__(Noise(seed))
        self._counted = calls
        self.loss = 0.0
        self.lost: set[tuple[str, int]] = set()

    async def send(self, channel: str, message: Any) -> None:
        self._counted["messages"] += 1
        await super().send(channel, message)

    async def group_send(self, group: str, message: Any) -> None:
        self._counted["messages"] += 1
        if message["type"] == envelope.EVENTS_TYPE and self.noise.happens(self.loss):
            self.lost |= {(message["topic"], event["offset"]) for event in message["events"]}
        else:
            await super().group_send(group, message)

    async def group_add(self, group: str, channel: str) -> None:
        self._counted["renewals"] += 1
        await super().group_add(group, channel)


class Register:
    """The register of all processes, by the loop's clock."""

    def __init__(self, calls: Counter[str]) -> None:
        self._calls = calls
        self._rows: dict[str, datetime] = {}

    def this_process(self) -> str:
        name: str = current.get().name
        return name

    async def beat(self) -> Beat:
        self._calls["beat"] += 1
        await asyncio.sleep(0.005)
        now = datetime(2026, 1, 1, tzinfo=UTC)
        now += timedelta(seconds=asyncio.get_running_loop().time())
        name, lease = self.this_process(), timedelta(seconds=settings.PROCESS_LEASE_SECONDS)
        is_new = name not in self._rows
        self._rows[name] = now
        return Beat(now, is_new, any(beat > now - lease for beat in self._others(name)))

    async def leave(self) -> None:
        self._rows.pop(self.this_process(), None)

    def _others(self, name: str) -> Iterator[datetime]:
        return (beat for each, beat in self._rows.items() if each != name)
