"""The keeper: who is present in this process and, on topics that are watched here, in others.

Processes do not tell each other. Every `PRESENCE_SECONDS` a process writes its changes to a table
in one statement and reads the changes of the others in another, however many users come and go.
The table alone decides, so a bus that loses messages changes nothing. All rows of each topic are
also read again in turn, which finds what a late commit or a restored backup has hidden.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, NamedTuple

from ..conf import settings
from ..processes.registry import this_process
from ..utils.aio import PerLoop, spawn
from ..utils.turns import Turns
from . import rows
from .roster import Attendance, Roster
from .rows import Row

logger = logging.getLogger("realtime.presence")

GATHER_SECONDS: Final = 0.05  # for topics that are new here: one statement for all of them
ALL_SECONDS: Final = 30.0  # in which all rows are read again
FAILED: Final = (
    "Can't write or read who is here (%s: %s); trying again. Until then others are not told of it. "
    "See that the database can be written to, and that `manage.py migrate` has been run."
)


class _Member(NamedTuple):
    """A key with connections to this process."""

    connections: int
    info: str


class Watch:
    """A reader that is told who is on one topic; `wake` is called when there is news."""

    def __init__(self, roster: Roster, wake: Callable[[], None]) -> None:
        self.roster = roster
        self.wake = wake
        self._known: Attendance | None = None

    @property
    def has_more(self) -> bool:
        """Return whether there may be news."""
        return self._known is not self.roster.current

    def take(self) -> str | None:
        """Return the news as a JSON object; None if there is none."""
        text = self.roster.changes(self._known)
        self._known = self.roster.current
        return text


class Keeper:
    """Who is present, for one event loop; a server process has one."""

    def __init__(self, table: Any = rows, process: str | None = None) -> None:
        self._table = table
        self.here: dict[str, dict[str, _Member]] = {}  # by topic and key
        self._process = process or this_process()
        self._time = asyncio.get_running_loop().time
        self._rosters: dict[str, Roster] = {}  # of the topics that are watched
        self._watches: dict[str, dict[Watch, None]] = {}
        self._unwritten: dict[tuple[str, str], str] = {}  # info by topic and key
        self._since: datetime | None = None  # of the last poll, by the database's clock
        self._alive: frozenset[str] = frozenset()
        self._gone: dict[str, float] = {}  # processes, and since when
        self._turns = Turns()
        self._all_at = self._time() + ALL_SECONDS  # when the own rows are compared
        self._next = self._time()
        self._is_due = asyncio.Event()
        self._has_failed = False
        self._task: asyncio.Task[None] | None = None
        self._work: asyncio.Task[None] | None = None  # with the table

    def enter(self, topic: str, key: str, info: str) -> None:
        """Count one more connection of `key`; `info` is JSON, what others see of the user."""
        members = self.here.setdefault(topic, {})
        before = members.get(key, _Member(0, ""))
        # One of which nothing is seen, as where PRESENCE_INFO has failed, hides no other.
        members[key] = _Member(before.connections + 1, info or before.info)
        self._note(topic, key, info)

    def leave(self, topic: str, key: str) -> None:
        """Count one connection less of `key`."""
        members = self.here[topic]
        member = members[key]
        if member.connections > 1:
            members[key] = member._replace(connections=member.connections - 1)
        else:
            del members[key]
        self._note(topic, key, member.info)
        if not members:
            del self.here[topic]
        if not self.here:
            self._is_due.set()  # the process may be about to end

    def watch(self, topic: str, wake: Callable[[], None]) -> Watch:
        """Return a new watch of a topic, whose first news is who is there."""
        roster = self._rosters.get(topic)
        if roster is None:
            roster = self._rosters[topic] = Roster(topic)
            self._turns.add(topic)
            for row in self.rows_of(topic):
                roster.put(row, self._time())
            self._is_due.set()
        watch = Watch(roster, wake)
        self._watches.setdefault(topic, {})[watch] = None
        roster.refresh(self._time(), self._gone)  # the new reader is told of itself too
        if watch.has_more:
            wake()
        self._start()
        return watch

    def unwatch(self, watch: Watch) -> None:
        """End a watch."""
        topic = watch.roster.topic
        watches = self._watches[topic]
        del watches[watch]
        if not watches:
            del self._watches[topic], self._rosters[topic]
            self._turns.discard(topic)

    def rows_of(self, topic: str) -> Iterator[Row]:
        """Yield the rows that this process has of a topic, written or not."""
        for key, member in self.here.get(topic, {}).items():
            yield Row(topic, key, member.connections, member.info, self._process)

    def _note(self, topic: str, key: str, info: str) -> None:
        self._unwritten[topic, key] = info
        if (roster := self._rosters.get(topic)) is not None:
            roster.put(self._row(topic, key, info), self._time())
        self._start()

    def _row(self, topic: str, key: str, info: str) -> Row:
        """Return what is here of a key; one that has left is still seen for a while."""
        connections, info = self.here.get(topic, {}).get(key, _Member(0, info))
        return Row(topic, key, connections, info, self._process)

    # -- in turn

    def _start(self) -> None:
        if self._task is None:
            self._task = spawn(self._run())

    async def _run(self) -> None:
        try:
            while self.here or self._unwritten or self._rosters or self._is_at_work:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(self._next):
                        await self._is_due.wait()
                        await asyncio.sleep(GATHER_SECONDS)
                self._is_due.clear()
                await self._do()
        finally:
            self._task = None
            if self._work is not None:
                self._work.cancel()

    @property
    def _is_at_work(self) -> bool:
        return self._work is not None and not self._work.done()

    async def _do(self) -> None:
        """Write, read and wake the readers; between the regular turns only what can't wait."""
        is_regular = self._time() >= self._next
        if is_regular:
            self._next = self._time() + settings.PRESENCE_SECONDS
        if self._work is None or self._work.done():
            self._work = spawn(self._sync(is_regular))
        # No longer: while the database does not answer, those of this process are told.
        await asyncio.wait([self._work], timeout=settings.PRESENCE_SECONDS)
        self._tell(is_regular)

    async def _sync(self, is_regular: bool) -> None:
        """Write and read the table."""
        try:
            if self._unwritten and (is_regular or not self.here):
                await self._write()
            if self._rosters:
                await self._read(is_regular)
            if self._time() >= self._all_at:
                await self._compare()
            self._has_failed = False
        except Exception as error:
            if not self._has_failed:
                logger.warning(FAILED, type(error).__name__, error)
            self._has_failed = True

    async def _write(self) -> None:
        unwritten, self._unwritten = self._unwritten, {}
        try:
            await self._table.write([self._row(*place, info) for place, info in unwritten.items()])
        except BaseException:
            self._unwritten = unwritten | self._unwritten
            raise

    async def _read(self, is_regular: bool) -> None:
        again: list[str] = []
        if is_regular:
            poll = await self._table.poll(self._since, list(self._rosters))
            self._since = poll.at or self._since
            if poll.alive is not None and self._note_alive(poll.alive):
                again = list(self._rosters)
            for row in poll.rows:
                if (roster := self._rosters.get(row.topic)) is not None and roster.is_loaded:
                    self._note_process(row)
                    roster.put(row, self._time())
            again = again or self._turns.next(ALL_SECONDS / settings.PRESENCE_SECONDS)
        unread = [topic for topic, roster in self._rosters.items() if not roster.is_loaded]
        if topics := list(dict.fromkeys([*unread, *again])):
            await self._read_all(topics)

    async def _read_all(self, topics: list[str]) -> None:
        asked = {topic: self._rosters[topic] for topic in topics}
        found: dict[str, list[Row]] = {topic: [] for topic in topics}
        for row in await self._table.read(topics):
            self._note_process(row)
            found[row.topic].append(row)
        for topic, roster in asked.items():
            roster.replace(found[topic], self._time(), self._process)

    def _note_alive(self, alive: frozenset[str]) -> bool:
        """Note which processes are alive; return whether one is back that seemed to have ended."""
        now, gone = self._time(), self._gone
        returned = alive & gone.keys()
        lost = self._alive - alive - gone.keys()
        self._alive = alive
        forgotten = now - settings.PRESENCE_GRACE_SECONDS - ALL_SECONDS
        self._gone = {
            name: since
            for name, since in gone.items()
            if name not in returned and since > forgotten
        } | dict.fromkeys(lost, now)
        if returned or lost:
            for roster in self._rosters.values():
                roster.note_processes()
        return bool(returned)

    def _note_process(self, row: Row) -> None:
        if self._alive and row.process not in self._alive:
            self._gone.setdefault(row.process, self._time())

    async def _compare(self) -> None:
        """Write again the rows of this process that the table lacks, and delete expired rows."""
        self._all_at = self._time() + ALL_SECONDS
        written = {
            (row.topic, row.key): _Member(row.connections, row.info)
            for row in await self._table.read_own()
        }
        here = {
            (topic, key): member
            for topic, members in self.here.items()
            for key, member in members.items()
        }
        for place in written.keys() | here.keys():
            if written.get(place) != here.get(place):
                self._unwritten.setdefault(place, (here.get(place) or written[place]).info)
        await self._table.tidy()

    def _tell(self, is_regular: bool) -> None:
        now = self._time()
        for topic, roster in self._rosters.items():
            if is_regular or roster.current is None:
                roster.refresh(now, self._gone)
                if roster.has_news:
                    roster.has_news = False
                    for watch in [each for each in self._watches[topic] if each.has_more]:
                        watch.wake()


def get_keeper() -> Keeper:
    """Return the keeper of the running event loop."""
    return _keepers.get()


_keepers: Final = PerLoop(Keeper)
