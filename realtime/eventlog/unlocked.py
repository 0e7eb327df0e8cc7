"""Take offsets of the topics that can be had at once, and leave those that others have locked."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, TypeAlias

from django.db import connections

from .. import models
from .new_topics import make_missing

Row: TypeAlias = tuple[int, str, int]  # a topic's key, its epoch, its head

# One statement for all topics of a batch. PostgreSQL evaluates the rows anew once it has their
# locks, so the heads are those of the transaction that committed last.
POSTGRESQL: Final = """
WITH free AS (SELECT {id} FROM {topics} WHERE {name} = ANY(%s) ORDER BY {name}
              FOR UPDATE SKIP LOCKED)
UPDATE {topics} SET {head} = {topics}.{head} + taken.n
FROM free, unnest(%s::text[], %s::bigint[]) AS taken(name, n)
WHERE {topics}.{id} = free.{id} AND {topics}.{name} = taken.name
RETURNING {topics}.{name}, {topics}.{id}, {topics}.{epoch}, {topics}.{head}
"""
MYSQL: Final = (
    "SELECT {name} FROM {topics} WHERE {name} IN ({marks}) ORDER BY {name} FOR UPDATE SKIP LOCKED"
)


def next_unlocked(
    cursor: Any, counts: Mapping[str, int], next_offsets: Callable[[Any, str, int], Row]
) -> dict[str, Row]:
    """Return each topic's key, epoch and the last of its next offsets, by name and without waiting.

    Without the topics that somebody else has locked, or is making. Where a database can't skip what
    is locked, it waits for each in turn.
    """
    if not cursor.db.features.has_select_for_update_skip_locked:
        return {name: next_offsets(cursor, name, count) for name, count in counts.items()}
    taken = _take(cursor, counts, next_offsets)
    left = {name: count for name, count in counts.items() if name not in taken}
    if left and make_missing(cursor, list(left)):
        taken |= _take(cursor, left, next_offsets)
    return taken


def _take(
    cursor: Any, counts: Mapping[str, int], next_offsets: Callable[[Any, str, int], Row]
) -> dict[str, Row]:
    connection, names = cursor.db, list(counts)
    if connection.vendor == "postgresql":
        cursor.execute(_statement(connection.alias), [names, names, list(counts.values())])
        return {name: row for name, *row in cursor.fetchall()}
    marks = ", ".join(["%s"] * len(names))
    cursor.execute(_statement(connection.alias).replace("{marks}", marks), names)
    free = [name for (name,) in cursor.fetchall()]
    return {name: next_offsets(cursor, name, counts[name]) for name in free}


@cache
def _statement(alias: str) -> str:
    connection = connections[alias]
    quote = connection.ops.quote_name
    columns = {name: quote(name) for name in ("id", "name", "epoch", "head")}
    statement = POSTGRESQL if connection.vendor == "postgresql" else MYSQL
    return statement.format(topics=quote(models.Topic._meta.db_table), marks="{marks}", **columns)
