"""Which events of the log in the database have expired, and their deletion."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from django.db.models import Max, Min, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Now

from .. import models
from ..conf import settings
from .writer import alias

TOPICS_PER_QUERY: Final = 500
DELETE_BATCH: Final = 1_000  # rows deleted in one transaction, so that publishers can get between


def prune() -> dict[str, int]:
    """Delete the events that have expired; return their number by topic."""
    pruned: dict[str, int] = {}
    for topic in _topics_with_events():
        if dropped := _drop_through(topic, _last_expired(topic), topic.oldest):
            pruned[topic.name] = dropped
    return pruned


def _topics_with_events() -> Iterator[Any]:
    """Yield topics with the offset of their oldest event, in pages."""
    # Not one long query: on SQLite a connection that is still reading can't begin to write once
    # another has written.
    events = models.Event.objects.filter(topic=OuterRef("pk")).order_by("offset")
    topics = models.Topic.objects.using(alias()).annotate(
        oldest=Subquery(events.values("offset")[:1])
    )
    last = 0
    while page := list(topics.filter(pk__gt=last).order_by("pk")[:TOPICS_PER_QUERY]):
        yield from (topic for topic in page if topic.oldest is not None)
        last = page[-1].pk


def _last_expired(topic: models.Topic) -> int:
    """Return the offset up to which retention wants the events gone; 0 for none."""
    last = 0
    if settings.RETENTION_EVENTS is not None:
        last = topic.head - settings.RETENTION_EVENTS
    if settings.RETENTION_SECONDS is not None:
        # By the database's clock, as `created` is: that of a host may be wrong.
        is_young = Q(created__gte=Now() - timedelta(seconds=settings.RETENTION_SECONDS))
        # The newest before the youngest, so that an event appended meanwhile counts as young.
        newest = _events(topic).aggregate(Max("offset"))["offset__max"] or 0
        # What is kept must stay consecutive. A database that was moved may have another clock, so
        # the first young event decides, not each event's own age.
        young = _events(topic).filter(is_young).aggregate(Min("offset"))["offset__min"]
        last = max(last, newest if young is None else young - 1)
    return last


def _drop_through(topic: models.Topic, last: int, oldest: int) -> int:
    dropped = 0
    while oldest <= last:
        upto = min(last, oldest + DELETE_BATCH - 1)
        count, _ = _events(topic).filter(offset__lte=upto).delete()
        dropped += count
        oldest = upto + 1
    return dropped


def _events(topic: models.Topic) -> QuerySet[models.Event]:
    return models.Event.objects.using(alias()).filter(topic=topic)
