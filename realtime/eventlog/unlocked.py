"""Take offsets of the topics that can be had at once, and leave those that others have locked."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from django.db import connections
from django.db.models.functions import Now

from .. import models
from .base import NewEvent
from .new_topics import make_missing
from .offsets import Row, next_offsets

# One statement for all topics of a batch. PostgreSQL evaluates the rows anew once it has their
# locks, so the heads are those of the transaction that committed last.
POSTGRESQL: Final = """
WITH free AS (SELECT {id} FROM {topics} WHERE {name} = ANY(%s::text[]) ORDER BY {name}
              FOR UPDATE SKIP LOCKED)
UPDATE {topics} SET {head} = {topics}.{head} + new.n
FROM free, unnest(%s::text[], %s::bigint[]) AS new(name, n)
WHERE {topics}.{id} = free.{id} AND {topics}.{name} = new.name
RETURNING {topics}.{name}, {topics}.{id}, {topics}.{epoch}, {topics}.{head}
"""
# The same, and their events. Each trip to the server costs more than what it does there.
POSTGRESQL_INSERT: Final = """
WITH free AS (SELECT {id} FROM {topics} WHERE {name} = ANY(%s::text[]) ORDER BY {name}
              FOR UPDATE SKIP LOCKED),
taken AS (
    UPDATE {topics} SET {head} = {topics}.{head} + new.n
    FROM free, unnest(%s::text[], %s::bigint[]) AS new(name, n)
    WHERE {topics}.{id} = free.{id} AND {topics}.{name} = new.name
    RETURNING {topics}.{name}, {topics}.{id}, {topics}.{epoch}, {topics}.{head}, new.n),
stored AS (
    INSERT INTO {events} ({topic_id}, {offset}, {type}, {data}, {meta}, {created}, {batch})
    SELECT taken.{id}, taken.{head} - taken.n + new.place, new.type, new.data, new.meta, {now}, %s
    FROM taken JOIN json_to_recordset(%s)
    AS new(name text, place bigint, type text, data text, meta text) ON new.name = taken.{name}
    ORDER BY taken.{name}, new.place)
SELECT {name}, {id}, {epoch}, {head} FROM taken
"""
MYSQL: Final = (
    "SELECT {name} FROM {topics} WHERE {name} IN ({marks}) ORDER BY {name} FOR UPDATE SKIP LOCKED"
)
# It locks all of the database; and it has no arrays.
SQLITE: Final = (
    "UPDATE {topics} SET {head} = {head} + new.value FROM json_each(%s) AS new "
    "WHERE {topics}.{name} = new.key RETURNING {name}, {topics}.{id}, {epoch}, {head}"
)


def next_unlocked(cursor: Any, counts: Mapping[str, int]) -> dict[str, Row]:
    """Return each topic's key, epoch and the last of its next offsets, by name and without waiting.

    Without the topics that somebody else has locked, or is making. Where a database can't skip what
    is locked, it waits for each in turn.
    """
    connection = cursor.db
    if not connection.features.has_select_for_update_skip_locked:
        taken = {}
        if connection.vendor == "sqlite" and len(counts) > 1:
            taken = _rows(cursor, SQLITE, [json.dumps(counts)])
        return {n: taken.get(n) or next_offsets(cursor, n, count) for n, count in counts.items()}
    take = _take_postgresql if connection.vendor == "postgresql" else _take_mysql
    return _take(cursor, counts, take)


def can_insert(cursor: Any, batch: Sequence[NewEvent]) -> bool:
    """Return whether `insert_unlocked` can store the events: not where keys have to be known."""
    return cursor.db.vendor == "postgresql" and all(event.key is None for event in batch)


def insert_unlocked(
    cursor: Any, events: Mapping[str, Sequence[NewEvent]], number: int
) -> dict[str, Row]:
    """Insert events, by their topics, and return what `next_unlocked` does for those inserted."""

    def take(cursor: Any, counts: Mapping[str, int]) -> dict[str, Row]:
        rows = [
            {"name": name, "place": place, "type": event.type, "data": event.data}
            | ({} if event.meta is None else {"meta": event.meta})
            for name in counts
            for place, event in enumerate(events[name], 1)
        ]
        values = [*_arrays(counts), number, json.dumps(rows, ensure_ascii=False)]
        return _rows(cursor, POSTGRESQL_INSERT, values)

    return _take(cursor, {name: len(own) for name, own in events.items()}, take)


def database_clock(alias: str) -> str:
    """Return the SQL of the database's own time, by which retention asks too."""
    now, _ = models.Topic.objects.using(alias).query.get_compiler(alias).compile(Now())
    return str(now)


def _take(
    cursor: Any,
    counts: Mapping[str, int],
    take: Callable[[Any, Mapping[str, int]], dict[str, Row]],
) -> dict[str, Row]:
    taken = take(cursor, counts)
    left = {name: count for name, count in counts.items() if name not in taken}
    if left and make_missing(cursor, list(left)):
        taken |= take(cursor, left)
    return taken


def _take_postgresql(cursor: Any, counts: Mapping[str, int]) -> dict[str, Row]:
    return _rows(cursor, POSTGRESQL, _arrays(counts))


def _take_mysql(cursor: Any, counts: Mapping[str, int]) -> dict[str, Row]:
    marks = ", ".join(["%s"] * len(counts))
    cursor.execute(_statement(MYSQL, cursor.db.alias).replace("{marks}", marks), list(counts))
    free = [name for (name,) in cursor.fetchall()]
    return {name: next_offsets(cursor, name, counts[name]) for name in free}


def _rows(cursor: Any, statement: str, values: Sequence[Any]) -> dict[str, Row]:
    cursor.execute(_statement(statement, cursor.db.alias), values)
    return {name: (pk, epoch, head) for name, pk, epoch, head in cursor.fetchall()}


def _arrays(counts: Mapping[str, int]) -> list[str]:
    # As PostgreSQL writes them: psycopg takes its time for lists. A topic has no quotes in it.
    names = "{" + ",".join(f'"{name}"' for name in counts) + "}"
    return [names, names, "{" + ",".join(map(str, counts.values())) + "}"]


@cache
def _statement(statement: str, alias: str) -> str:
    quote = connections[alias].ops.quote_name
    topics, events = (quote(model._meta.db_table) for model in (models.Topic, models.Event))
    own = ("topic_id", "offset", "type", "data", "meta", "created", "batch")
    columns = {name: quote(name) for name in ("id", "name", "epoch", "head", *own)}
    marks, now = "{marks}", database_clock(alias)
    return statement.format(topics=topics, events=events, marks=marks, now=now, **columns)
