"""The roster: who is on one topic, as this process knows it, and what of that is told.

A key that has left a process, or whose process has ended, counts for `PRESENCE_GRACE_SECONDS` more:
a user who comes back within that time, to any process, has never left.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..conf import settings
from ..events.payload import dumps
from .rows import Row

NOBODY: Final[Mapping[str, "Person"]] = {}


class Person(NamedTuple):
    """A user that is there: what the others see, as a JSON object, and how often."""

    info: str
    connections: int

    @property
    def text(self) -> str:
        """Return the JSON object of a frame."""
        separator = "" if self.info == "{}" else ","
        return f'{self.info[:-1]}{separator}"connections":{self.connections}}}'


@dataclass(frozen=True, eq=False, slots=True)
class Attendance:
    """Who is there at one time."""

    topic: str
    people: Mapping[str, Person]  # by key; none where they are too many to be told
    connections: int
    is_large: bool
    number: int  # what is told when it changes: of connections without a user, or of all

    @property
    def text(self) -> str:
        """Return all of it as a JSON object."""
        return self._text() if self.is_large else self._text(users=self.people.values())

    @property
    def count_text(self) -> str:
        """Return the numbers as a JSON object."""
        return self._text()

    def since(self, known: "Attendance | None") -> str | None:
        """Return what has changed since `known` as a JSON object; None if nothing has."""
        if known is None or known.is_large != self.is_large:
            return self.text
        if not self.differs_from(known):
            return None
        return self.count_text if self.is_large else self._text_since(known)

    def differs_from(self, known: "Attendance") -> bool:
        """Return whether something has to be told."""
        if (known.is_large, known.number) != (self.is_large, self.number):
            return True
        return known.people.keys() != self.people.keys()

    def _text_since(self, known: "Attendance") -> str:
        joined = [each for key, each in self.people.items() if key not in known.people]
        left = [
            each._replace(connections=0)
            for key, each in known.people.items()
            if key not in self.people
        ]
        return self._text(joined=joined, left=left)

    def _text(self, **lists: Iterable[Person]) -> str:
        parts = [f'"topic":{dumps(self.topic)}']
        for name, people in lists.items():
            parts.append(f'"{name}":[{",".join(each.text for each in people)}]')
        return f'{{{",".join(parts)},"connections":{self.connections}}}'


@dataclass(slots=True)
class _Held:
    """What one process says of one key."""

    connections: int
    info: str
    until: float = math.inf  # when it counts no more


class Roster:
    """The rows of one topic, and the attendance that is told."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.current: Attendance | None = None
        self.is_loaded = False
        self.has_news = False  # for those who are told once in a while
        self._changes: dict[Attendance | None, str | None] = {}  # since what readers know
        self._held: dict[tuple[str, str], _Held] = {}  # by process and key
        self._is_due = False  # something has changed
        self._due_at = math.inf  # somebody's time is up
        self._not_before = -math.inf  # numbers are told less often
        self._fell_at: float | None = None  # when there were fewer than is told

    def put(self, row: Row, now: float) -> None:
        """Note a row, whether it is known already or not."""
        place = row.process, row.key
        held = self._held.get(place)
        if row.connections:
            if held != (new := _Held(row.connections, row.info)):
                self._held[place] = new
                self._is_due = True
        elif held is None or held.until == math.inf:
            until = now + settings.PRESENCE_GRACE_SECONDS - row.age
            self._held[place] = _Held(0, row.info, until)
            self._is_due = True

    def replace(self, rows: Iterable[Row], now: float, own: str) -> None:
        """Note all rows of other processes; keys whose rows are missing have left."""
        self.is_loaded = self._is_due = True
        rows = [row for row in rows if row.process != own]
        found = {(row.process, row.key) for row in rows}
        for place, held in self._held.items():
            if place[0] != own and place not in found and held.until == math.inf:
                held.until = now + settings.PRESENCE_GRACE_SECONDS
        for row in rows:
            self.put(row, now)

    def note_processes(self) -> None:
        """Note that a process has ended, or has come back."""
        self._is_due = True

    def changes(self, known: Attendance | None) -> str | None:
        """Return the news for a reader that was told `known` last; None if there is none."""
        if self.current is None or self.current is known:
            return None
        if known not in self._changes:  # once for all readers
            self._changes[known] = self.current.since(known)
        return self._changes[known]

    def refresh(self, now: float, gone: Mapping[str, float]) -> None:
        """Bring `current` up to date; `gone` has the processes that have ended, and when."""
        if not self.is_loaded or now < self._not_before:
            return
        if not self._is_due and now < self._due_at:
            return
        self._is_due, self._due_at = False, math.inf
        before, self.current = self.current, self._attendance(now, gone)
        self._changes.clear()
        if before is None or self.current.differs_from(before):
            self.has_news = True
            if self.current.is_large:
                self._not_before = now + settings.PRESENCE_COUNT_SECONDS

    def _attendance(self, now: float, gone: Mapping[str, float]) -> Attendance:
        people: dict[str, Person] = {}
        connections = unlisted = 0
        for place, held in list(self._held.items()):
            process, key = place
            until = min(held.until, gone.get(process, math.inf) + settings.PRESENCE_GRACE_SECONDS)
            if until <= now:
                del self._held[place]
                continue
            self._due_at = min(self._due_at, until)
            connections += held.connections
            if held.info:
                others = people[key].connections if key in people else 0
                people[key] = Person(held.info, others + held.connections)
            else:
                unlisted += held.connections
        if len(people) > settings.PRESENCE_MEMBERS:
            number = self._settled(connections, now, is_large=True)
            return Attendance(self.topic, NOBODY, number, True, number)
        number = self._settled(unlisted, now, is_large=False)
        return Attendance(self.topic, people, connections, False, number)

    def _settled(self, number: int, now: float, *, is_large: bool) -> int:
        """Return the number; a lower one only after the grace, since users may come back."""
        before = self.current
        if before is None or before.is_large != is_large or number >= before.number:
            self._fell_at = None
            return number
        if self._fell_at is None:
            self._fell_at = now
        settles_at = self._fell_at + settings.PRESENCE_GRACE_SECONDS
        if now >= settles_at:
            self._fell_at = None
            return number
        self._due_at = min(self._due_at, settles_at)
        return before.number
