"""The event log in the site's own database."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

from django.db import connections, router, transaction
from django.db.models import Max, Min, OuterRef, Subquery
from django.utils import timezone

from .. import models
from ..conf import settings
from ..events.event import Event
from ..events.position import OLDEST, START, UNBORN, Position, new_epoch
from ..exceptions import HistoryGone
from ..utils.batching import Batched
from ..utils.threads import in_database_thread, read_in_database_thread
from .base import EventLog, Page

NAMES_PER_QUERY: Final = 500  # SQLite limits the parameters of one statement
DELETE_BATCH: Final = 1_000  # rows deleted in one transaction, so that publishers can get between


class Statements(NamedTuple):
    """What one append executes. Written out because it is on the path of every event, and because
    the ORM has no UPDATE with RETURNING, which saves a query within the row lock."""

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


class DatabaseLog(EventLog):
    """Topics and events as rows; the topic's row lock puts appends in order."""

    def append(self, topic: str, type: str, data: str) -> Event:
        return self.append_many([(topic, type, data)])[0]

    def on_commit(self, callback: Callable[[], None]) -> None:
        # robust: a failing announcement must not keep the site's own hooks from running.
        transaction.on_commit(callback, using=_alias(), robust=True)

    async def append_now(
        self, topic: str, type: str, data: str, then: Callable[[Event], None] | None = None
    ) -> Event:
        return await _append_together((topic, type, data, then))

    def append_many(self, events: Sequence[tuple[str, str, str]]) -> list[Event]:
        """Store (topic, type, data) in one transaction: all of them, or none."""
        alias = _alias()
        by_topic: dict[str, list[int]] = {}
        for index, (topic, _, _) in enumerate(events):
            by_topic.setdefault(topic, []).append(index)
        stored: dict[int, Event] = {}
        rows = []
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            now = connections[alias].ops.adapt_datetimefield_value(timezone.now())
            # Locks are taken in the same order everywhere, or two processes could wait for each
            # other.
            for topic in sorted(by_topic):
                indices = by_topic[topic]
                pk, epoch, head = self._next_offsets(cursor, topic, len(indices))
                for offset, index in enumerate(indices, head - len(indices) + 1):
                    _, type, data = events[index]
                    rows.append((pk, offset, type, data, now))
                    stored[index] = Event(topic, type, data, epoch, offset)
            cursor.executemany(_statements(alias).insert, rows)
        return [stored[index] for index in range(len(events))]

    async def heads(self, topics: Sequence[str]) -> Mapping[str, Position]:
        return await read_in_database_thread(self._heads, topics)

    async def read(self, topic: str, after: Position, limit: int) -> Page:
        return await read_in_database_thread(self._read, topic, after, limit)

    def prune(self) -> Mapping[str, int]:
        pruned: dict[str, int] = {}
        for topic in self._topics_with_events():
            if dropped := self._drop_through(topic, self._last_expired(topic), topic.oldest):
                pruned[topic.name] = dropped
        return pruned

    def renew(self, topics: Sequence[str] | None = None) -> int:
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

    def _next_offsets(self, cursor: Any, name: str, count: int) -> tuple[int, str, int]:
        """The topic's key, its epoch, and the last one of its next `count` offsets."""
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

    def _topics_with_events(self) -> Iterator[Any]:
        """Topics with the offset of their oldest event, in pages.

        Not one long query: on SQLite a connection that is still reading can't begin to write once
        another has written.
        """
        events = models.Event.objects.filter(topic=OuterRef("pk")).order_by("offset")
        topics = models.Topic.objects.annotate(oldest=Subquery(events.values("offset")[:1]))
        last = 0
        while page := list(topics.filter(pk__gt=last).order_by("pk")[:NAMES_PER_QUERY]):
            yield from (topic for topic in page if topic.oldest is not None)
            last = page[-1].pk

    def _last_expired(self, topic: models.Topic) -> int:
        """The offset up to which retention wants the topic's events gone; 0 for none."""
        last = 0
        if settings.RETENTION_EVENTS is not None:
            last = topic.head - settings.RETENTION_EVENTS
        if settings.RETENTION_SECONDS is not None:
            cutoff = timezone.now() - timedelta(seconds=settings.RETENTION_SECONDS)
            # The newest before the youngest, so that an event appended meanwhile counts as young.
            newest = topic.events.aggregate(Max("offset"))["offset__max"] or 0
            # What is kept must stay consecutive. Clocks of several hosts may disagree, so the
            # first young event decides, not each event's own age.
            young = topic.events.filter(created__gte=cutoff).aggregate(Min("offset"))["offset__min"]
            last = max(last, newest if young is None else young - 1)
        return last

    def _drop_through(self, topic: models.Topic, last: int, oldest: int) -> int:
        dropped = 0
        while oldest <= last:
            upto = min(last, oldest + DELETE_BATCH - 1)
            count, _ = topic.events.filter(offset__lte=upto).delete()
            dropped += count
            oldest = upto + 1
        return dropped


def _follows(event: Event, after: Position) -> bool:
    return after.epoch in (UNBORN, event.epoch) and event.offset == after.offset + 1


def _alias() -> str:
    return router.db_for_write(models.Event)


Wanted: TypeAlias = tuple[str, str, str, Callable[[Event], None] | None]


async def _append_batch(wanted: Sequence[Wanted]) -> list[Event]:
    log = DatabaseLog()
    events = await in_database_thread(log.append_many, [each[:3] for each in wanted])
    for event, (_, _, _, then) in zip(events, wanted, strict=True):
        if then is not None:
            then(event)
    return events


# Group commit: publishers who come while a transaction is under way share the next one.
_append_together: Final = Batched(_append_batch)
