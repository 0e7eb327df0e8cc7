"""The table of who is here in memory, by the loop's clock. It may fail, and take its time."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import OperationalError

from realtime.conf import settings
from realtime.presence.rows import OVERLAP, Poll, Row

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Stored:
    row: Row
    changed: float


class Table:
    """What all processes share."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.rows: dict[tuple[str, str, str], Stored] = {}  # by topic, process and key
        self.alive: set[str] = set()  # these beat all the time
        self.beats: dict[str, float] = {}  # of those that have gone without a word
        self.is_failing = False
        self.longest = 0.0  # seconds until a statement is committed
        self.calls: list[str] = []

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def kill(self, process: str) -> None:
        self.alive.discard(process)
        self.beats[process] = self.now()

    def leave(self, process: str) -> None:
        for place, stored in self.rows.items():
            if place[1] == process and stored.row.connections:
                self.rows[place] = Stored(stored.row._replace(connections=0), self.now())
        self.alive.discard(process)


@dataclass(frozen=True)
class View:
    """The table as one process has it: what `presence.rows` has for a real one."""

    table: Table
    process: str

    async def write(self, rows: Sequence[Row]) -> None:
        at = await self._begin("write")
        await asyncio.sleep(self.table.random.uniform(0, self.table.longest))
        for row in rows:
            place = row.topic, self.process, row.key
            self.table.rows[place] = Stored(row._replace(process=self.process), at)
        self._fail()  # the answer may be lost

    async def poll(self, since: datetime | None, topics: Sequence[str]) -> Poll:
        now = await self._begin("poll")
        lease = settings.PROCESS_LEASE_SECONDS
        beats = {name: beat for name, beat in self.table.beats.items() if beat > now - lease}
        alive = frozenset({*self.table.alive, *beats})
        at = START + timedelta(seconds=now)
        if since is None:
            return Poll(at, alive, [])
        mark = (since - OVERLAP - START).total_seconds()
        found = [
            stored
            for place, stored in self.table.rows.items()
            if stored.changed > mark and place[0] in topics and place[1] != self.process
        ]
        return Poll(at, alive, self._rows(found))

    async def read(self, topics: Sequence[str]) -> list[Row]:
        now = await self._begin("read")
        grace, lease = settings.PRESENCE_GRACE_SECONDS, settings.PROCESS_LEASE_SECONDS
        known = set(self.table.alive)
        known |= {name for name, beat in self.table.beats.items() if beat > now - lease - grace}
        found = [
            stored
            for place, stored in self.table.rows.items()
            if place[0] in topics
            and (place[1] in known if stored.row.connections else stored.changed > now - grace)
        ]
        return self._rows(found)

    async def read_own(self) -> list[Row]:
        await self._begin("read_own")
        found = [stored for place, stored in self.table.rows.items() if place[1] == self.process]
        return [row for row in self._rows(found) if row.connections]

    async def tidy(self) -> None:
        await self._begin("tidy")

    def _rows(self, found: Sequence[Stored]) -> list[Row]:
        now = self.table.now()
        return [replace_age(stored.row, now - stored.changed) for stored in found]

    async def _begin(self, call: str) -> float:
        self.table.calls.append(call)
        await asyncio.sleep(self.table.random.uniform(0.001, 0.05))
        self._fail()
        return self.table.now()

    def _fail(self) -> None:
        if self.table.is_failing:
            raise OperationalError("The database is away.")


def replace_age(row: Row, age: float) -> Row:
    return row._replace(age=max(0.0, age))
