"""The table of who is here: each process writes its own rows, and all read those that count.

A row without connections is of a key that has left; it counts for `PRESENCE_GRACE_SECONDS` more. A
row with connections counts while its process beats, and for the same grace after its lease.
Everything by the database's clock.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from django.db import connections
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from ..conf import settings
from ..models import Presence, Process
from ..processes.registry import process_leaving, this_process
from ..utils.primary import primary_rows
from ..utils.sqlite import wait_at_most
from ..utils.threads import DATABASE

BUSY_MS: Final = 250  # to wait for another writer of SQLite; the next turn comes soon
WRITE_ROWS: Final = 2_000  # in one statement
FEW_TOPICS: Final = 500  # are named in the statement; of more, the changes of all are read
# A statement may be committed this long after the time it has written.
OVERLAP: Final = timedelta(seconds=3)
KEPT: Final = timedelta(seconds=60)  # a row that counts no more, until it is deleted


class Row(NamedTuple):
    """What a process says of one key on one topic."""

    topic: str
    key: str
    connections: int
    info: str  # JSON; empty where the others see nothing of the user
    process: str = ""
    age: float = 0.0  # seconds since it was written


class Poll(NamedTuple):
    """What has changed since the last poll."""

    at: datetime | None  # by the database's clock; None where it can't be told
    alive: frozenset[str] | None  # processes; None while this one has no row to compare with
    rows: list[Row]


async def write(rows: Sequence[Row]) -> None:
    """Write rows of this process."""
    await DATABASE.run(_write, rows, this_process())


async def poll(since: datetime | None, topics: Sequence[str]) -> Poll:
    """Return which processes are alive, and what the others have written since the last poll."""
    return await DATABASE.run_twice(_poll, since, topics, this_process())


async def read(topics: Sequence[str]) -> list[Row]:
    """Return the rows of topics that count."""
    return await DATABASE.run_twice(read_now, topics)


async def read_own() -> list[Row]:
    """Return the rows of this process that have connections."""
    return await DATABASE.run_twice(_read_own, this_process())


async def tidy() -> None:
    """Delete the rows that count no more."""
    await DATABASE.run(_tidy)


def read_now(topics: Sequence[str]) -> list[Row]:
    """Return the rows of topics that count; from a thread."""
    rows: list[Row] = []
    for start in range(0, len(topics), FEW_TOPICS):
        part = topics[start : start + FEW_TOPICS]
        rows += _as_rows(_counting().filter(topic__in=part))
    return rows


def is_key_here(key: str) -> bool:
    """Return whether a key is on any topic; from a thread."""
    return _counting().filter(key=key).exists()


def _counting() -> QuerySet[Presence]:
    """Return the rows that count now."""
    grace = timedelta(seconds=settings.PRESENCE_GRACE_SECONDS)
    seen = timedelta(seconds=settings.PROCESS_LEASE_SECONDS) + grace
    rows = primary_rows(Presence)
    # Nor what is far ahead: the clock was set back since it was written.
    alive = (
        primary_rows(Process).filter(beat__gt=Now() - seen, beat__lt=Now() + seen).values("name")
    )
    left = Q(connections=0, changed__gt=Now() - grace, changed__lt=Now() + grace)
    return rows.filter(Q(connections__gt=0, process__in=alive) | left)


def _as_rows(rows: QuerySet[Presence]) -> list[Row]:
    fields = ("topic", "key", "connections", "info", "process", "changed")
    return [
        Row(topic, key, count, info, process, abs((now - changed).total_seconds()))
        for topic, key, count, info, process, changed, now in rows.values_list(*fields, Now())
    ]


def _write(rows: Sequence[Row], process: str) -> None:
    table = primary_rows(Presence)
    made = [
        Presence(
            topic=row.topic,
            process=process,
            key=row.key,
            connections=row.connections,
            info=row.info,
            changed=Now(),
        )
        for row in rows
    ]
    has_target = connections[table.db].features.supports_update_conflicts_with_target
    with wait_at_most(table.db, BUSY_MS):
        table.bulk_create(
            made,
            batch_size=WRITE_ROWS,
            update_conflicts=True,
            update_fields=["connections", "info", "changed"],
            unique_fields=["topic", "process", "key"] if has_target else None,
        )


def _poll(since: datetime | None, topics: Sequence[str], process: str) -> Poll:
    found = list(primary_rows(Process).values_list("name", "beat", Now()))
    beats = {name: beat for name, beat, _ in found}
    # By this process's beat and not by the clock: while none can write, none counts as gone.
    alive = None
    if process in beats:
        own, lease = beats[process], timedelta(seconds=settings.PROCESS_LEASE_SECONDS)
        alive = frozenset(name for name, beat in beats.items() if abs(beat - own) < lease)
    at = found[0][2] if found else None
    if since is None:
        return Poll(at, alive, [])
    changed = primary_rows(Presence).filter(changed__gt=since - OVERLAP).exclude(process=process)
    if len(topics) <= FEW_TOPICS:
        changed = changed.filter(topic__in=topics)
    return Poll(at, alive, _as_rows(changed))


def _read_own(process: str) -> list[Row]:
    return _as_rows(primary_rows(Presence).filter(process=process, connections__gt=0))


def _tidy() -> None:
    rows = primary_rows(Presence)
    grace = timedelta(seconds=settings.PRESENCE_GRACE_SECONDS)
    known = primary_rows(Process).values("name")
    with wait_at_most(rows.db, BUSY_MS):
        rows.filter(
            Q(connections=0) | ~Q(process__in=known), changed__lt=Now() - (grace + KEPT)
        ).delete()


def _leave(name: str, **kwargs: Any) -> None:
    """Write that all have left a process that ends, before its row in the register goes."""
    primary_rows(Presence).filter(process=name, connections__gt=0).update(
        connections=0, changed=Now()
    )


process_leaving.connect(_leave)
