"""What the live page shows: the rows of processes, and what they have open."""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.db.models.functions import Now

from ..access.connections import get_connections
from ..access.inspection import ANSWERS, Found, inspect
from ..access.signals import TOPIC
from ..conf import settings
from ..delivery.announce import announce
from ..delivery.subscription import Subscription
from ..eventlog.base import NewEvent
from ..events.event import Event
from ..events.payload import DEFAULT_TYPE, dumps
from ..models import Process
from ..processes.registry import own_row, this_process
from ..processes.status import get_status
from ..utils.primary import primary_rows

ANSWER_SECONDS: Final = 1.0  # for other processes to answer; what has come by then is shown
SHOWN_TOPICS: Final = 50
SHOWN_USERS: Final = 10  # whose names differ in upper and lower case alone


@dataclass
class ProcessLine:
    """A row of the register, as it is shown."""

    row: Process
    silent: int | None = None  # for so many seconds, longer than its lease

    @property
    def pid(self) -> str:
        """Return the process id, which its name ends with."""
        return self.row.name.rpartition(".")[2]

    @property
    def lag_ms(self) -> int | None:
        """Return by how many milliseconds its event loop was late."""
        return None if self.row.loop_lag is None else round(self.row.loop_lag * 1_000)


@dataclass
class ConnectionLine:
    """A live connection, as it is shown."""

    process: ProcessLine | None
    transport: str
    since: datetime
    topics: list[str]
    more: int  # topics that are not named
    address: str | None


@dataclass
class UserLine:
    """A user that was looked for."""

    user: Any
    connections: list[ConnectionLine] = field(default_factory=list)


@dataclass
class Snapshot:
    """What is shown."""

    processes: list[ProcessLine]
    users: list[UserLine]
    topics: list[tuple[str, int]] = field(default_factory=list)
    unheard: list[ProcessLine] = field(default_factory=list)  # that have not answered in time


def load(username: str = "") -> Snapshot:
    """Return what the database has: the processes, and users of this name in any case."""
    lease = settings.PROCESS_LEASE_SECONDS
    rows = primary_rows(Process).annotate(now=Now())
    processes = []
    for row in rows.order_by("host", "started", "name"):
        age = (row.now - row.beat).total_seconds()
        processes.append(ProcessLine(row, int(age) if age > lease else None))
    users: list[Any] = []
    if username and "\0" not in username:  # which PostgreSQL would refuse to look for
        User = get_user_model()
        named = {f"{User.USERNAME_FIELD}__iexact": username}
        users = list(User._default_manager.filter(**named).order_by("pk")[:SHOWN_USERS])
    return Snapshot(processes, [UserLine(user) for user in users])


async def complete(shown: Snapshot) -> None:
    """Add what the processes have open: this one at once, others as they answer."""
    pks = [str(line.user.pk) for line in shown.users]
    own = this_process()
    by_name = {line.row.name: line for line in shown.processes}
    status = get_status()
    if own not in by_name and status.connections:  # without a bus to others there are no rows
        by_name[own] = ProcessLine(Process(**own_row(), **status.columns()))
        shown.processes.append(by_name[own])
    # One that says it has no connections is not asked: it does not hear the question either.
    asked = [
        name
        for name, line in by_name.items()
        if name != own and line.silent is None and line.row.connections != 0
    ]
    found = {name: Found([], []) for name in asked}
    unheard = await _ask(found, pks)
    shown.unheard = [by_name[name] for name in unheard]
    found[own] = inspect(get_connections().connections, pks)
    readers: Counter[str] = Counter()
    for each in found.values():
        readers.update(dict(each.topics))
    shown.topics = sorted(readers.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_TOPICS]
    by_pk = {str(line.user.pk): line.connections for line in shown.users}
    for name, each in found.items():
        for pk, transport, since, topics, count, address in each.connections:
            began = datetime.fromtimestamp(since, UTC)
            more = count - len(topics)
            line = ConnectionLine(by_name.get(name), transport, began, topics, more, address)
            by_pk[pk].append(line)
    for lines in by_pk.values():
        lines.sort(key=lambda line: line.since)


async def _ask(found: dict[str, Found], users: Sequence[str]) -> list[str]:
    """Ask the processes in `found`, and add their answers to it; return those without one."""
    waiting = set(found)
    if not waiting:
        return []
    number = secrets.token_hex(16)
    question = {"number": number, "process": this_process(), "users": users}
    async with Subscription() as subscription:
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                await subscription.add(f"{ANSWERS}{number}")
                data = dumps({"inspect": question})
                await announce([NewEvent(TOPIC, DEFAULT_TYPE, data).to_event()])
                while waiting:
                    for process in _put(await subscription.read(), found):
                        waiting.discard(process)
    return [name for name in found if name in waiting]


def _put(items: Iterable[object], found: dict[str, Found]) -> list[str]:
    """Add the answers to `found`; return the processes whose last one has come."""
    done = []
    for item in items:
        if isinstance(item, Event):
            said = json.loads(item.data)
            if said["process"] in found:  # not one that is new
                found[said["process"]].topics.extend(said.get("topics", ()))
                found[said["process"]].connections.extend(said.get("connections", ()))
                if "is_last" in said:
                    done.append(said["process"])
    return done
