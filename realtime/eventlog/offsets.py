"""Take a topic's next offsets, and with them the lock of its row until the transaction ends."""

from functools import cache
from typing import Any, TypeAlias

from django.db import connections

from .. import models
from .new_topics import make_topic

Row: TypeAlias = tuple[int, str, int]  # a topic's key, its epoch, its head


def next_offsets(cursor: Any, name: str, count: int) -> Row:
    """Return the topic's key, its epoch, and the last one of its next `count` offsets."""
    row = _advance_head(cursor, name, count)
    if row is None:
        make_topic(cursor.db, name)
        row = _advance_head(cursor, name, count)
    assert row is not None
    return row


def _advance_head(cursor: Any, name: str, count: int) -> Row | None:
    """Advance the topic's head; return its key, its epoch and the new head, None without a row."""
    # The first statement takes the row lock; until commit no one else can number an event of it.
    update, lock = _statements(cursor.db.alias)
    if lock is not None:
        cursor.execute(lock, [name])
        row = cursor.fetchone()
        if row is None:
            return None
        cursor.execute(update, [count, name])
        return row[0], row[1], row[2] + count
    cursor.execute(update, [count, name])
    row = cursor.fetchone()
    return None if row is None else (row[0], row[1], row[2])


@cache
def _statements(alias: str) -> tuple[str, str | None]:
    """Return the UPDATE, and what locks before it where that does not return what it has set.

    Written out because it is on the path of every event, and because the ORM has no UPDATE with
    RETURNING, which saves a query within the row lock. MariaDB and MySQL have none either.
    """
    quote = connections[alias].ops.quote_name
    topics, head, name = map(quote, (models.Topic._meta.db_table, "head", "name"))
    update = f"UPDATE {topics} SET {head} = {head} + %s WHERE {name} = %s"
    found = f"{quote('id')}, {quote('epoch')}, {head}"
    if connections[alias].vendor == "mysql":
        return update, f"SELECT {found} FROM {topics} WHERE {name} = %s FOR UPDATE"
    return f"{update} RETURNING {found}", None
