"""A channel layer and a log that fail at random."""

import asyncio
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import OperationalError

from realtime.conf import settings
from realtime.delivery.bus.base import PEERS_TOPIC
from realtime.eventlog.base import NewEvent, Page
from realtime.eventlog.memory import MemoryLog
from realtime.events.event import Event
from realtime.events.position import START, Position
from realtime.processes.registry import Beat, this_process


class Noise:
    """The bad luck of one run: how likely things are, and a source of chance."""

    def __init__(
        self,
        seed: int = 0,
        *,
        drop: float = 0.0,
        repeat: float = 0.0,
        delay: float = 0.0,
        longest: float = 0.0,
        fail: float = 0.0,
    ) -> None:
        self.random = random.Random(seed)
        self.drop = drop
        self.repeat = repeat
        self.delay = delay
        self.longest = longest  # seconds of a delay
        self.fail = fail

    def happens(self, likelihood: float) -> bool:
        return self.random.random() < likelihood

    def seconds(self) -> float:
        """A delay, if one is due; else none."""
        return self.random.uniform(0, self.longest) if self.happens(self.delay) else 0.0

    async def wait(self) -> None:
        """A delay, if one is due; the loop gets its turn in any case."""
        await asyncio.sleep(self.seconds())


class FakeLayer:
    """The Channels layer API; drops, repeats, delays and so reorders, fails, hangs and forgets."""

    extensions = ["groups"]

    def __init__(self, noise: Noise | None = None) -> None:
        self.noise = noise or Noise()
        self.down = False
        self.hanging = False
        self.hung = False  # ever, while called
        self.deaf = False  # it takes everything, and brings nothing
        self.groups: dict[str, set[str]] = {}
        self.channels: dict[str, asyncio.Queue[Any]] = {}
        self.calls: list[tuple[str, str]] = []

    @property
    def topics(self) -> dict[str, set[str]]:
        """The groups without that of all hubs."""
        return {name: members for name, members in self.groups.items() if name != PEERS_TOPIC}

    async def new_channel(self, prefix: str = "specific") -> str:
        channel = f"{prefix}.{len(self.channels)}"
        self.channels[channel] = asyncio.Queue()
        return channel

    async def receive(self, channel: str) -> Any:
        if self.down:
            raise ConnectionError("The layer is down.")
        message = await self.channels[channel].get()
        if isinstance(message, Exception):
            raise message
        return message

    async def send(self, channel: str, message: Any) -> None:
        await self._respond("send", channel)
        if not self.deaf:
            self.channels[channel].put_nowait(message)

    async def group_add(self, group: str, channel: str) -> None:
        await self._respond("group_add", group)
        self.groups.setdefault(group, set()).add(channel)

    async def group_discard(self, group: str, channel: str) -> None:
        await self._respond("group_discard", group)
        members = self.groups.get(group, set())
        members.discard(channel)
        if not members:
            self.groups.pop(group, None)

    async def group_send(self, group: str, message: Any) -> None:
        await self._respond("group_send", group)
        loop = asyncio.get_running_loop()
        for channel in self.groups.get(group, ()):
            if self.deaf or self.noise.happens(self.noise.drop):
                continue
            for _ in range(2 if self.noise.happens(self.noise.repeat) else 1):
                delay = self.noise.seconds()
                loop.call_later(delay, self.channels[channel].put_nowait, message)

    def fail(self) -> None:
        """Go down: what is in flight is lost, who listens gets an error."""
        self.down = True
        for queue in self.channels.values():
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(ConnectionError("The layer went down."))

    def recover(self) -> None:
        """Come back empty, as a restarted Redis does."""
        self.down = False
        self.groups.clear()

    async def _respond(self, call: str, group: str) -> None:
        if call != "send":  # which only the bus itself needs
            self.calls.append((call, group))
        if self.hanging:
            self.hung = True
            await asyncio.Event().wait()
        await asyncio.sleep(min(self.noise.seconds(), 0.5))
        if self.down:
            raise ConnectionError("The layer is down.")


class LogFailed(Exception):
    """What the fake log raises."""


class FaultyLog(MemoryLog):
    """A log in memory that can be slow or fail. It remembers which history was ever gone."""

    def __init__(self, noise: Noise | None = None) -> None:
        numbers = itertools.count(1)
        super().__init__(lambda: f"epoch{next(numbers):03}")
        self.noise = noise or Noise()
        self.failing = False
        self.gone: dict[str, dict[str, int]] = {}  # topic -> epoch -> offset of the last one gone
        self.reads = 0

    def put(self, topic: str, type: str, data: str) -> Event:
        """Append one event, at once and without fail."""
        return self.append([NewEvent(topic, type, data)])[0]

    async def aappend(
        self, batch: Sequence[NewEvent], then: Callable[[Sequence[Event]], object] | None = None
    ) -> list[Event]:
        await self._stumble()
        stored = await super().aappend(batch, then)
        await self._stumble()  # the answer may be lost after the event was stored
        return stored

    async def heads(self, topics: Sequence[str]) -> Mapping[str, Position]:
        await self._stumble()
        heads = await super().heads(topics)
        await self._stumble()
        return heads

    async def read(self, topic: str, after: Position, limit: int) -> Page:
        self.reads += 1
        await self._stumble()
        try:
            return await super().read(topic, after, limit)
        finally:
            await self._stumble()

    def drop(self, topic: str, keep: int) -> None:
        """Retention: keep only the newest."""
        kept = self._kept.get(topic, [])
        if dropped := kept[: len(kept) - keep]:
            self.gone.setdefault(topic, {})[dropped[-1].epoch] = dropped[-1].offset
            del kept[: len(dropped)]

    def delete(self, topic: str) -> None:
        """The topic goes, as from the admin; the next event begins a new epoch."""
        head = self._heads.pop(topic, None)
        self._kept.pop(topic, None)
        if head is not None:
            self.gone.setdefault(topic, {})[head.epoch] = 2**63

    def head(self, topic: str) -> Position:
        """Where the topic stands."""
        return self._heads.get(topic, START)

    def was_gone(self, topic: str, position: Position) -> bool:
        """Whether what followed `position` was ever out of reach."""
        gone = self.gone.get(topic, {})
        if position == START:
            return any(last for last in gone.values())
        head = self.head(topic)
        known = position.epoch in gone or head.epoch == position.epoch
        if head.epoch == position.epoch and head.offset < position.offset:
            return True  # never was within reach
        return not known or gone.get(position.epoch, 0) > position.offset

    async def _stumble(self) -> None:
        await self.noise.wait()
        if self.failing or self.noise.happens(self.noise.fail):
            raise LogFailed


class FakeRegistry:
    """The register of processes in memory, by the loop's clock. It may fail, or take its time."""

    this_process = staticmethod(this_process)

    def __init__(self) -> None:
        self.rows: dict[str, datetime] = {}
        self.alive: set[str] = set()  # other processes that beat all the time
        self.skew = 0.0  # seconds that the database's clock is ahead
        self.failing = False
        self.seconds = 0.0  # that it takes to answer what it has found
        self.beats = 0  # also those that fail

    def now(self) -> datetime:
        seconds = asyncio.get_running_loop().time() + self.skew
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)

    async def beat(self) -> Beat:
        self.beats += 1
        if self.failing:
            raise OperationalError("The database is away.")
        at = self.now()
        is_new = this_process() not in self.rows
        self.rows |= dict.fromkeys([this_process(), *self.alive], at)
        since = at - timedelta(seconds=settings.PROCESS_LEASE_SECONDS)
        others = [beat for name, beat in self.rows.items() if name != this_process()]
        await asyncio.sleep(self.seconds)
        return Beat(at, is_new, sum(beat > since for beat in others))

    async def leave(self) -> None:
        if self.failing:
            raise OperationalError("The database is away.")
        self.rows.pop(this_process(), None)
