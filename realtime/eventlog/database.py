"""The event log in the site's own database."""

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

from django.core.checks import CheckMessage, Error
from django.db import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    connections,
    router,
    transaction,
)
from django.db.models import Subquery
from django.utils import timezone

from .. import models
from ..conf import settings
from ..events.event import Event
from ..events.position import OLDEST, START, UNBORN, Position, new_epoch
from ..exceptions import HistoryGone, RealtimeConfigurationError
from ..utils.batching import Batcher
from ..utils.threads import DATABASE
from .base import EventLog, NewEvent, Page
from .retention import prune

logger = logging.getLogger("realtime.eventlog")

NAMES_PER_QUERY: Final = 500  # SQLite limits the parameters of one statement
DATABASES: Final = ("postgresql", "sqlite")  # by Django's names of their vendors
SQLITE_RETURNING: Final = (3, 35)  # the first version that has it


class Statements(NamedTuple):
    """What one append executes.

    Written out because it is on the path of every event, and because the ORM has no UPDATE with
    RETURNING, which saves a query within the row lock.
    """

    update: str
    insert: str


@cache
def _statements(alias: str) -> Statements:
    quote = connections[alias].ops.quote_name
    topics, events = (quote(model._meta.db_table) for model in (models.Topic, models.Event))
    head, name = quote("head"), quote("name")
    columns = ", ".join(map(quote, ("topic_id", "offset", "type", "data", "created")))
    return Statements(
        f"UPDATE {topics} SET {head} = {head} + %s WHERE {name} = %s "
        f"RETURNING {quote('id')}, {quote('epoch')}, {head}",
        f"INSERT INTO {events} ({columns}) VALUES (%s, %s, %s, %s, %s)",
    )


Call: TypeAlias = tuple[NewEvent, Callable[[Event], object] | None]


class Attempt:
    """How far an append has come."""

    is_committing = False  # all has been inserted: what fails from here on is the COMMIT


class AppendFailed(DatabaseError):
    """An append that the same statements would not mend, or that may be stored."""

    def __init__(self, error: Exception, *, may_be_stored: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.may_be_stored = may_be_stored


class DatabaseLog(EventLog):
    """Topics and events as rows; the topic's row lock puts appends in order."""

    supports_transactions = True

    def __init__(self) -> None:
        # Group commit: publishers that come while a transaction is under way share the next one.
        self._append_together = Batcher(self._append_calls)

    def append(self, batch: Sequence[NewEvent]) -> list[Event]:
        return self._append(batch, Attempt()) if batch else []

    def on_commit(self, callback: Callable[[], object]) -> None:
        # robust: a failing announcement must not keep the site's own hooks from running.
        transaction.on_commit(callback, using=_alias(), robust=True)

    async def aappend(
        self, event: NewEvent, then: Callable[[Event], object] | None = None
    ) -> Event:
        return await self._append_together((event, then))

    async def heads(self, topics: Sequence[str]) -> Mapping[str, Position]:
        return await DATABASE.run_twice(self._heads, topics)

    async def read(self, topic: str, after: Position, limit: int) -> Page:
        return await DATABASE.run_twice(self._read, topic, after, limit)

    def prune(self) -> Mapping[str, int]:
        return prune()

    def start_epoch(self, topics: Sequence[str] | None = None) -> int:
        rows = models.Topic.objects.all()
        if topics is not None:
            rows = rows.filter(name__in=topics)
        # In pages: a statement over all topics would keep their publishers waiting.
        count = 0
        pks = list(rows.values_list("pk", flat=True))
        for start in range(0, len(pks), NAMES_PER_QUERY):
            page = models.Topic.objects.filter(pk__in=pks[start : start + NAMES_PER_QUERY])
            count += page.update(epoch=new_epoch())
        return count

    def check(self) -> list[CheckMessage]:
        """Return an error where an append would be a syntax error of the database."""
        alias = _alias()
        vendor = connections[alias].vendor
        if vendor not in DATABASES:
            message = f"The event log can't be stored in DATABASES[{alias!r}], which is {vendor}."
        elif vendor == "sqlite" and sqlite3.sqlite_version_info < SQLITE_RETURNING:
            message = f"The event log can't be stored in SQLite {sqlite3.sqlite_version}."
        else:
            return []
        least = ".".join(map(str, SQLITE_RETURNING))
        hint = f"Use PostgreSQL, or SQLite {least} or newer: it needs UPDATE ... RETURNING."
        return [Error(message, hint=hint, id="realtime.E011")]

    async def _append_calls(self, calls: Sequence[Call]) -> list[Event | BaseException]:
        """Store the events of several publishers in one transaction, and tell each at once.

        Where nothing was stored, it is tried again: all of them once more after an error that
        passes, else in halves, so that one bad event does not take the others with it. What may be
        stored is never repeated: it could be there twice.
        """
        try:
            batch = [event for event, _ in calls]
            events = await DATABASE.run_twice(self._append_or_say_why, batch)
        except AppendFailed as failed:
            if failed.may_be_stored or len(calls) == 1:
                return [failed.error] * len(calls)
            half = len(calls) // 2
            parts = calls[:half], calls[half:]
            return [answer for part in parts for answer in await self._append_calls(part)]
        except Exception as error:
            return [error] * len(calls)
        for event, (_, then) in zip(events, calls, strict=True):
            try:
                if then is not None:
                    then(event)
            except Exception:
                # The publisher must not believe that its event was not stored.
                logger.exception("%r is stored, and what was to follow failed", event)
        return [*events]

    def _append_or_say_why(self, batch: Sequence[NewEvent]) -> list[Event]:
        """Append, or raise `AppendFailed` for what is not to be tried again as it is."""
        attempt = Attempt()
        try:
            return self._append(batch, attempt)
        except Exception as error:
            may_be_stored = attempt.is_committing and not _is_rolled_back(error)
            if _is_passing(error) and not may_be_stored:
                raise
            raise AppendFailed(error, may_be_stored=may_be_stored) from error

    def _append(self, batch: Sequence[NewEvent], attempt: Attempt) -> list[Event]:
        with transaction.atomic(using=_alias()):
            events = self._insert(batch)
            attempt.is_committing = True
        return events

    def _insert(self, batch: Sequence[NewEvent]) -> list[Event]:
        alias = _alias()
        by_topic: dict[str, list[int]] = {}
        for index, event in enumerate(batch):
            if event.meta is not None or event.key is not None:
                raise RealtimeConfigurationError(
                    "DatabaseLog has no columns for an event's meta and key: leave them None."
                )
            by_topic.setdefault(event.topic, []).append(index)
        stored: dict[int, Event] = {}
        rows = []
        with connections[alias].cursor() as cursor:
            now = connections[alias].ops.adapt_datetimefield_value(timezone.now())
            # Locks are taken in the same order everywhere, or two processes could wait for each
            # other.
            for topic in sorted(by_topic):
                indices = by_topic[topic]
                pk, epoch, head = self._next_offsets(cursor, topic, len(indices))
                for offset, index in enumerate(indices, head - len(indices) + 1):
                    event = batch[index]
                    rows.append((pk, offset, event.type, event.data, now))
                    stored[index] = event.to_event(epoch, offset)
            cursor.executemany(_statements(alias).insert, rows)
        return [stored[index] for index in range(len(batch))]

    def _next_offsets(self, cursor: Any, name: str, count: int) -> tuple[int, str, int]:
        """Return the topic's key, its epoch, and the last one of its next `count` offsets."""
        # The update takes the row lock; until commit no one else can number an event of this topic.
        update = _statements(_alias()).update
        cursor.execute(update, [count, name])
        row = cursor.fetchone()
        if row is None:
            # Two publishers may both find the topic missing: the constraint lets one insert win.
            models.Topic.objects.bulk_create([models.Topic(name=name)], ignore_conflicts=True)
            cursor.execute(update, [count, name])
            row = cursor.fetchone()
        pk, epoch, head = row
        return pk, epoch, head

    def _heads(self, names: Sequence[str]) -> dict[str, Position]:
        heads: dict[str, Position] = {}
        for start in range(0, len(names), NAMES_PER_QUERY):
            chunk = names[start : start + NAMES_PER_QUERY]
            rows = models.Topic.objects.filter(name__in=chunk, head__gt=0)
            for name, epoch, head in rows.values_list("name", "epoch", "head"):
                heads[name] = Position(epoch, head)
        return heads

    def _read(self, name: str, after: Position, limit: int) -> Page:
        if after == OLDEST:
            # The head first: what is appended after this look is newer than the page's position.
            head = self._heads([name]).get(name, START)
            events = self._events(name, after.offset, None, limit)
            return Page(events, events[-1].position if events else head)
        for _ in range(2):
            # Offsets are consecutive, so no more than this can be wanted. Without the bound, and
            # without statistics, PostgreSQL sorts all that follow for each page of a history.
            events = self._events(name, after.offset, after.offset + limit, limit)
            if events and _follows(events[0], after):
                return Page(events, events[-1].position)
            head = self._heads([name]).get(name, START)
            if head == after:
                return Page([], after)
            if events or head.offset <= after.offset:
                break
            # Nothing followed, yet the head is further on: an event was appended between the two
            # looks (the second round finds it), or all that followed has been pruned.
        raise HistoryGone(f"The log of {name!r} no longer holds what followed {after}.")

    def _events(self, name: str, after: int, upto: int | None, limit: int) -> list[Event]:
        # Subqueries, not a join, so that the events of one topic are read along the index.
        topic = models.Topic.objects.filter(name=name)
        rows = models.Event.objects.filter(
            topic=Subquery(topic.values("pk")[:1]), offset__gt=after
        ).annotate(epoch=Subquery(topic.values("epoch")[:1]))
        if upto is not None:
            rows = rows.filter(offset__lte=upto)
        values = rows.order_by("offset").values_list("offset", "type", "data", "epoch")
        events: list[Event] = []
        room = settings.LOG_PAGE_BYTES
        for offset, type, data, epoch in values[:limit]:
            room -= len(data.encode())
            if events and room < 0:
                break
            events.append(Event(name, type, data, epoch, offset))
        return events


def _follows(event: Event, after: Position) -> bool:
    return after.epoch in (UNBORN, event.epoch) and event.offset == after.offset + 1


def _alias() -> str:
    return router.db_for_write(models.Event)


def _is_passing(error: Exception) -> bool:
    """Return whether the same statements may succeed if they are executed once more."""
    # After a lost connection (SQLSTATE class 08, 57P0x, or none where nothing was answered), a
    # deadlock or a serialization failure (class 40).
    if not isinstance(error, InterfaceError | OperationalError):
        return False
    return (_sqlstate(error) or "08").startswith(("08", "57P", "40"))


def _is_rolled_back(error: Exception) -> bool:
    """Return whether a COMMIT that failed was answered, and so has stored nothing."""
    # Integrity constraint violation, invalid transaction state, transaction rollback.
    return isinstance(error, IntegrityError) or (_sqlstate(error) or "").startswith(
        ("23", "25", "40")
    )


def _sqlstate(error: Exception) -> str | None:
    """Return the database's code of an error; None if it has none, as SQLite."""
    code: str | None = getattr(error.__cause__, "sqlstate", None)
    return code
