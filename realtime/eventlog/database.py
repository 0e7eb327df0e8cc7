"""The event log in the site's own database."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, TypeAlias

from django.core.checks import CheckMessage, Error
from django.db import (
    DEFAULT_DB_ALIAS,
    InterfaceError,
    OperationalError,
    connections,
    transaction,
)
from django.db.models import Subquery

from .. import models
from ..conf import settings
from ..events.event import Event
from ..events.position import OLDEST, START, UNBORN, Position, new_epoch
from ..exceptions import HistoryGone, OutcomeUnknown
from ..utils.aio import shielded, spawn
from ..utils.batching import Batcher
from ..utils.threads import DATABASE
from .base import Changes, EventLog, NewEvent, Page
from .changes import find_changes
from .known_heads import is_behind, known_heads
from .retention import PRUNING_ROW, claim_pruning, prune
from .stored_heads import NAMES_PER_QUERY, pages_of_names, stored_heads
from .topic_queues import TopicQueues
from .writer import (
    CHANGED_ROW,
    alias,
    append,
    append_unlocked,
    append_within,
    change_row,
    end_epoch,
    note_stored,
)

logger = logging.getLogger("realtime.eventlog")

LINGER_SECONDS: Final = 0.001  # that a transaction waits for publishers who are expected
DATABASES: Final = ("postgresql", "mysql", "sqlite")  # by Django's names of their vendors
OTHER_DATABASE: Final = (
    "Route the app 'realtime' to the database of the site's own models. Or open transactions there "
    "by atomic(using=...), publish in on_commit of the others, and silence this."
)
SQLITE_RETURNING: Final = (3, 35)  # the first version that has it

Call: TypeAlias = tuple[Sequence[NewEvent], Callable[[Sequence[Event]], object] | None]
Question: TypeAlias = None  # in the place of a call: whether an event could be stored
Store: TypeAlias = Callable[[Sequence[NewEvent]], Sequence[Event | None]]


class DatabaseLog(EventLog):
    """Topics and events as rows; the topic's row lock puts appends in order.

    Read where it is written: a replica that is behind would answer with what is not true any more.
    """

    supports_transactions = True

    def __init__(self) -> None:
        # Group commit: publishers that come while a transaction is under way share the next one.
        self._append_together = Batcher[Call | Question, Any](
            self._answer, linger=LINGER_SECONDS, unanswered=OutcomeUnknown
        )
        # It waits for no lock: a long transaction that has published keeps those of its topic alone
        # waiting.
        self._append_waiting = TopicQueues[Call, Any](partial(self._append_calls, append))

    def append(self, batch: Sequence[NewEvent]) -> list[Event]:
        if not batch:
            return []
        connection = connections[alias()]
        if connection.in_atomic_block or not connection.get_autocommit():
            return append_within(batch)
        try:
            return append(batch)
        except (InterfaceError, OperationalError):
            connection.close_if_unusable_or_obsolete()  # dropped since it was last used
            return append(batch)

    def on_commit(self, callback: Callable[[], object]) -> None:
        # robust: a failing announcement must not keep the site's own hooks from running.
        transaction.on_commit(callback, using=alias(), robust=True)

    async def aappend(
        self, batch: Sequence[NewEvent], then: Callable[[Sequence[Event]], object] | None = None
    ) -> list[Event]:
        if not batch:
            return []
        call = batch, then
        stored: list[Event] | asyncio.Task[list[Event]]
        if all(event.topic == batch[0].topic for event in batch):
            stored = await self._append_together(call)
        else:  # what can be stored at once would be, and the rest later
            stored = self._wait(call)
        # A publisher that leaves meanwhile takes nothing back.
        return await shielded(stored) if isinstance(stored, asyncio.Task) else stored

    async def check_writable(self) -> None:
        await self._append_together(None)

    async def heads(self, topics: Sequence[str]) -> Mapping[str, Position]:
        return await DATABASE.run_twice(self._heads, topics)

    async def changes(self, mark: Any, limit: int) -> Changes:
        return await DATABASE.run_twice(find_changes, mark, limit)

    async def read(self, topic: str, after: Position, limit: int) -> Page:
        return await DATABASE.run_twice(self._read, topic, after, limit)

    def prune(self) -> Mapping[str, int]:
        return prune()

    def prune_in_turn(self, interval: float) -> Mapping[str, int]:
        return prune() if claim_pruning(interval) else {}

    def start_epoch(self, topics: Sequence[str] | None = None) -> int:
        rows = models.Topic.objects.using(alias()).exclude(name__in=[CHANGED_ROW, PRUNING_ROW])
        if topics is not None:
            rows = rows.filter(name__in=topics)
        # In pages: a statement over all topics would keep their publishers waiting.
        count = 0
        pks = list(rows.values_list("pk", flat=True))
        for start in range(0, len(pks), NAMES_PER_QUERY):
            page = models.Topic.objects.using(alias()).filter(
                pk__in=pks[start : start + NAMES_PER_QUERY]
            )
            count += page.update(epoch=new_epoch())
        return count

    def note_stored(self, events: Iterable[Event]) -> None:
        note_stored(events)

    async def end_epoch(self, event: Event) -> None:
        await DATABASE.run_twice(end_epoch, event.topic, event.position, event)

    def check(self) -> list[CheckMessage]:
        """Return an error where appends are syntax errors, or in no transaction of the site's."""
        name = alias()
        vendor = connections[name].vendor
        has_default = connections[DEFAULT_DB_ALIAS].vendor != "unknown"  # as Django calls {}
        if vendor not in DATABASES:
            message = f"The event log can't be stored in DATABASES[{name!r}], which is {vendor}."
        elif vendor == "sqlite" and sqlite3.sqlite_version_info < SQLITE_RETURNING:
            message = f"The event log can't be stored in SQLite {sqlite3.sqlite_version}."
        elif name != DEFAULT_DB_ALIAS and has_default:
            message = (
                f"The event log is in DATABASES[{name!r}]: what is published in a transaction on "
                f"{DEFAULT_DB_ALIAS!r} is stored and sent even if that rolls back."
            )
            return [Error(message, hint=OTHER_DATABASE, id="realtime.E012")]
        else:
            return []
        least = ".".join(map(str, SQLITE_RETURNING))
        hint = f"Use PostgreSQL, MariaDB, MySQL, or SQLite {least} or newer."
        return [Error(message, hint=hint, id="realtime.E011")]

    async def _answer(self, calls: Sequence[Call | Question]) -> list[Any]:
        appends = [call for call in calls if call is not None]
        stored = await self._append_calls(append_unlocked, appends)
        answers = iter(
            [
                self._wait(call) if events is None else events
                for call, events in zip(appends, stored, strict=True)
            ]
        )
        problem = await self._find_problem() if None in calls else None
        return [problem if call is None else next(answers) for call in calls]

    def _wait(self, call: Call) -> asyncio.Task[list[Event]]:
        waiting = spawn(self._append_waiting.put(call[0][0].topic, call))
        # Seen, so that asyncio does not report it where the publisher has left.
        waiting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return waiting

    async def _find_problem(self) -> Exception | None:
        try:
            await DATABASE.run_twice(change_row)
        except Exception as error:
            return error
        return None

    async def _append_calls(
        self, store: Store, calls: Sequence[Call]
    ) -> list[list[Event] | BaseException | None]:
        """Store the events of several publishers in one transaction, and tell each at once.

        None is for those whose topic `store` has left out.

        What fails has stored nothing and is tried again: all of them once more where the
        connection or the database's state was the cause, else in halves, so that one bad event
        does not take the others with it.
        """
        if not calls:
            return []
        try:
            batch = [event for events, _ in calls for event in events]
            stored = iter(await DATABASE.run_twice(store, batch))
        except (InterfaceError, OperationalError, OutcomeUnknown) as error:
            return [error] * len(calls)
        except MemoryError:  # perhaps there was none for the answer alone
            return [OutcomeUnknown()] * len(calls)
        except Exception as error:
            if len(calls) == 1:
                return [error]
            half = len(calls) // 2
            parts = calls[:half], calls[half:]
            return [answer for part in parts for answer in await self._append_calls(store, part)]
        return [_tell(list(islice(stored, len(events))), then) for events, then in calls]

    def _heads(self, names: Sequence[str]) -> dict[str, Position]:
        heads: dict[str, Position] = {}
        for chunk in pages_of_names(names):
            known = known_heads.of(chunk)  # before the statement, which has to see as much
            found = stored_heads(chunk)
            lost = [name for name in known if is_behind(found.get(name, START), known[name])]
            for name in lost:
                end_epoch(name, known[name])
            heads |= found | stored_heads(lost) if lost else found
        known_heads.note(heads.items())
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
        topic = models.Topic.objects.using(alias()).filter(name=name)
        rows = (
            models.Event.objects.using(alias())
            .filter(topic=Subquery(topic.values("pk")[:1]), offset__gt=after)
            .annotate(epoch=Subquery(topic.values("epoch")[:1]))
        )
        if upto is not None:
            rows = rows.filter(offset__lte=upto)
        values = rows.order_by("offset").values_list("offset", "type", "data", "epoch", "meta")
        events: list[Event] = []
        room = settings.LOG_PAGE_BYTES
        for offset, type, data, epoch, meta in values[:limit]:
            event = Event(name, type, data, epoch, offset, meta)
            room -= event.size
            if events and room < 0:
                break
            events.append(event)
        return events


def _tell(
    stored: list[Event | None], then: Callable[[Sequence[Event]], object] | None
) -> list[Event] | None:
    """Tell a publisher of its events, and return them; None where they are not stored yet."""
    events = [event for event in stored if event is not None]
    if len(events) < len(stored):
        return None
    try:
        if then is not None:
            then(events)
    except Exception:
        # The publisher must not believe that its events were not stored.
        logger.exception("%r are stored, and what was to follow failed", events)
    return events


def _follows(event: Event, after: Position) -> bool:
    return after.epoch in (UNBORN, event.epoch) and event.offset == after.offset + 1
