"""Append events to their topics' rows, and find out what became of a COMMIT without an answer.

An append has three phases. What fails *before the COMMIT* has stored nothing. A *COMMIT that the
database refuses* has not either. Where a *COMMIT is not answered*, because the connection broke,
the events may be stored: then the rows tell, which carry the append's number.
"""

import logging
import math
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

from django.db import Error as DatabaseError  # InterfaceError is none of Django's DatabaseErrors
from django.db import IntegrityError, connections, router, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from .. import models
from ..conf import settings
from ..events.event import Event
from ..events.position import Position, new_epoch
from ..exceptions import OutcomeUnknown
from .base import NewEvent
from .keys import Keys
from .known_heads import is_behind, known_heads
from .offsets import Row, next_offsets
from .unlocked import can_insert, database_clock, insert_unlocked, next_unlocked

logger = logging.getLogger("realtime.eventlog")

# By the vendor; of a number of seconds.
LOCK_TIMEOUTS: Final = {
    "postgresql": "SET LOCAL lock_timeout = '{}s'",
    "mysql": "SET innodb_lock_wait_timeout = {}",
}
DEADLOCK: Final = 1213  # MySQL's number for a transaction that it has rolled back
# SQLite's BUSY and FULL come before the transaction's end is written. IOERR may come after it, as
# where the file can't be synced: then the events may be stored, or be so after a crash.
SQLITE_REFUSALS: Final = frozenset({5, 13})
CHANGED_ROW: Final = "realtime:ready"  # a name that no topic can have
ROWS_PER_INSERT: Final = 50  # MySQL and SQLite limit what one statement holds
RETRY_SECONDS: Final = 0.2  # between two tries to find out whether an append is stored
WENT_BACK: Final = (
    "The log of %s went back: it had events up to %s, and now up to %s. A new epoch begins. If the "
    "database was set back, run `manage.py new_epoch --all` for topics that no process knew."
)


class Append:
    """Events that are stored together, and what their rows have got so far."""

    def __init__(self, batch: Sequence[NewEvent], *, skips_locked: bool = False) -> None:
        self.batch = batch
        self.skips_locked = skips_locked  # what can't be stored at once is left out
        self.number = secrets.randbits(63)  # in each row: by it the rows are known again
        self.stored: dict[int, Event] = {}  # by their place in the batch
        self.first: tuple[int, Event] | None = None  # the key of the topic locked first; its event


@cache
def _insert_statement(alias: str, count: int) -> str:
    """Return the INSERT of events; written out, because it is on the path of every event."""
    quote = connections[alias].ops.quote_name
    names = ("topic_id", "offset", "type", "data", "meta", "created", "batch")
    columns, events = ", ".join(map(quote, names)), quote(models.Event._meta.db_table)
    row = f"(%s, %s, %s, %s, %s, {database_clock(alias)}, %s)"
    return f"INSERT INTO {events} ({columns}) VALUES {', '.join([row] * count)}"


def append(batch: Sequence[NewEvent]) -> list[Event]:
    """Store events in a transaction of their own; nothing is stored if this raises.

    Raises `OutcomeUnknown` if they may be stored all the same.
    """
    stored = _append(Append(batch))
    return [stored[index] for index in range(len(batch))]


def append_unlocked(batch: Sequence[NewEvent]) -> list[Event | None]:
    """Store events as `append` does, but for those of topics that others have locked or are making.

    These are None, and not stored. A database that can't skip what is locked stores all.
    """
    stored = _append(Append(batch, skips_locked=True))
    return [stored.get(index) for index in range(len(batch))]


def _append(new: Append) -> dict[int, Event]:
    is_committing = False
    try:
        with transaction.atomic(using=alias()):
            insert(new)
            is_committing = bool(new.stored)
            transaction.set_rollback(not is_committing, using=alias())
    except DatabaseError as error:
        if is_committing and not _is_refused(error):
            _settle(new, error)
        else:
            raise
    note_stored(new.stored.values())
    return new.stored


def append_within(batch: Sequence[NewEvent]) -> list[Event]:
    """Store events in the transaction that is open, which decides what becomes of them."""
    new = Append(batch)
    with transaction.atomic(using=alias()):
        insert(new)
    transaction.on_commit(lambda: note_stored(new.stored.values()), using=alias())
    return [new.stored[index] for index in range(len(batch))]


def note_stored(events: Iterable[Event]) -> None:
    """Take note of events that are committed."""
    known_heads.note((event.topic, event.position) for event in events if event.offset)


def end_epoch(topic: str, known: Position, event: Event | None = None) -> None:
    """Begin a new epoch of a topic that ends before `known`, or has another event there.

    One statement decides it, with the row locked: of several processes one begins it, and an answer
    of a replica that is behind begins none.
    """
    has_lost = Q(head__lt=known.offset)
    if event is not None:
        stored = models.Event.objects.filter(topic=OuterRef("pk"), offset=known.offset)
        same = {"type": event.type, "data": event.data, "meta": event.meta}
        has_lost |= Q(Exists(stored.exclude(**same)))
    rows = models.Topic.objects.using(alias()).filter(name=topic)
    if rows.filter(has_lost, epoch=known.epoch).update(epoch=new_epoch()):
        logger.error(WENT_BACK, topic, known, rows.values_list("head", flat=True).first())


def insert(new: Append) -> None:
    """Insert the events within the transaction that is open, but for those that were before."""
    # Locks are taken in the same order everywhere, or two processes could wait for each other.
    by_topic: dict[str, list[int]] = {topic: [] for topic in sorted({e.topic for e in new.batch})}
    for index, event in enumerate(new.batch):
        by_topic[event.topic].append(index)
    stored: dict[int, Event] = {}
    rows: list[tuple[Any, ...]] = []
    first: tuple[int, Event] | None = None
    with connections[alias()].cursor() as cursor:
        has_inserted = new.skips_locked and can_insert(cursor, new.batch)
        taken = _take(cursor, new, by_topic, has_inserted)
        keys = Keys(cursor.db.alias, new.batch, [pk for pk, _, _ in taken.values()])
        # What is known by now was committed before the rows were locked, or is older.
        heads = known_heads.of(list(taken))
        for topic, (pk, epoch, head) in taken.items():
            offset = head - len(by_topic[topic])
            if is_behind(Position(epoch, offset), known := heads.get(topic)):
                logger.error(WENT_BACK, topic, known, offset)
                epoch = new_epoch()
                _topic(pk).update(epoch=epoch)
            for index in by_topic[topic]:
                event = new.batch[index]
                place = keys.claim(pk, event, offset + 1)
                if place <= offset:
                    stored[index] = event.to_repeated(epoch, place)
                    continue
                offset = place
                rows.append((pk, offset, event.type, event.data, event.meta, new.number))
                stored[index] = event.to_event(epoch, offset)
                first = first or (pk, stored[index])
            if offset < head:  # taken for those that were before
                _topic(pk).update(head=offset)
        if not has_inserted:
            _insert_rows(cursor, rows)
        keys.save()
    # Not before all is inserted: `_settle` still needs the first ones where this fails again.
    new.first, new.stored = first, stored


def _take(
    cursor: Any, new: Append, by_topic: Mapping[str, Sequence[int]], has_inserted: bool
) -> Mapping[str, Row]:
    """Lock the topics and advance their heads; with `has_inserted` insert the events as well."""
    if has_inserted:
        events = {topic: [new.batch[n] for n in places] for topic, places in by_topic.items()}
        return insert_unlocked(cursor, events, new.number)
    counts = {topic: len(places) for topic, places in by_topic.items()}
    if new.skips_locked:
        return next_unlocked(cursor, counts)
    return {topic: next_offsets(cursor, topic, count) for topic, count in counts.items()}


def _insert_rows(cursor: Any, rows: Sequence[tuple[Any, ...]]) -> None:
    # Not by `executemany`, which makes as many statements.
    for start in range(0, len(rows), ROWS_PER_INSERT):
        page = rows[start : start + ROWS_PER_INSERT]
        values = list(chain.from_iterable(page))
        cursor.execute(_insert_statement(cursor.db.alias, len(page)), values)


def _topic(pk: int) -> QuerySet[models.Topic]:
    return models.Topic.objects.using(alias()).filter(pk=pk)


def _settle(new: Append, error: Exception) -> None:
    """Have the events stored once, and `new` know them, when this returns.

    For `APPEND_RESOLVE_SECONDS` at most, then it raises `OutcomeUnknown`.
    """
    logger.warning("A COMMIT was not answered (%s); finding out whether it has stored", error)
    deadline = time.monotonic() + settings.APPEND_RESOLVE_SECONDS
    try:
        while True:
            connections[alias()].close()  # nothing more is to be had from it
            try:
                with transaction.atomic(using=alias()):
                    if not _is_stored(new, deadline):
                        insert(new)
                return
            except DatabaseError as failed:
                if time.monotonic() >= deadline:
                    raise OutcomeUnknown from failed
            time.sleep(RETRY_SECONDS)
    finally:
        connections[alias()].close()  # MySQL's keeps the timeout that was set


def _is_stored(new: Append, deadline: float) -> bool:
    """Return whether the events are stored, and keep them from being stored until the commit.

    The first topic decides for all: they were stored together. Its row is locked, so this waits
    for the transaction in question where the database has not ended it yet.
    """
    if new.first is None:  # all were before
        return True
    pk, first = new.first
    connection = connections[alias()]
    has_other_writers = connection.vendor in LOCK_TIMEOUTS  # SQLite has one at a time
    if has_other_writers:
        seconds = max(1, math.ceil(deadline - time.monotonic()))
        with connection.cursor() as cursor:
            cursor.execute(LOCK_TIMEOUTS[connection.vendor].format(seconds))
    rows = _topic(pk).select_for_update().values_list("epoch", "head")
    topic = rows.first()
    if topic is None and has_other_writers:
        # The append has made it, and may not have ended yet: a row that is not committed can't be
        # locked, but an insert of the same name waits for it.
        made = models.Topic(name=first.topic)
        models.Topic.objects.using(alias()).bulk_create([made], ignore_conflicts=True)
        topic = rows.first()
    if topic is None:  # rolled back
        return False
    epoch, head = topic
    if epoch != first.epoch:
        raise OutcomeUnknown
    if head < first.offset:
        return False
    stored = models.Event.objects.using(alias()).filter(topic_id=pk, offset=first.offset)
    numbers = list(stored.values_list("batch", flat=True))
    if not numbers:  # pruned already
        raise OutcomeUnknown
    return numbers == [new.number]


def change_row() -> None:
    """Change a row that is of no topic; raise what keeps an append from changing one."""
    # To another value: a disk that is full is not noticed by what has not changed.
    topics = models.Topic.objects.using(alias())
    if not topics.filter(name=CHANGED_ROW).update(epoch=new_epoch()):
        topics.bulk_create([models.Topic(name=CHANGED_ROW)], ignore_conflicts=True)


def alias() -> str:
    """Return the alias of the database that has the log."""
    return router.db_for_write(models.Event)


def _is_refused(error: Exception) -> bool:
    """Return whether a COMMIT that failed was answered, and so has stored nothing."""
    # Integrity constraint violation, invalid transaction state, transaction rollback.
    code: str = getattr(error.__cause__, "sqlstate", None) or ""  # SQLite has none
    if code == "40003":  # statement completion unknown: of a proxy in front of the database
        return False
    is_deadlock = error.args[:1] == (DEADLOCK,)
    is_of_sqlite = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF in SQLITE_REFUSALS
    is_of_sql = isinstance(error, IntegrityError) or code.startswith(("23", "25", "40"))
    return is_of_sql or is_deadlock or is_of_sqlite
