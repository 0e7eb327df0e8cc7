"""What of the log in the database has expired, its deletion, and whose turn it is."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

from django.db import connections
from django.db.models import (
    BigIntegerField,
    BooleanField,
    Case,
    DateTimeField,
    Expression,
    F,
    Max,
    Min,
    Model,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
)
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast, Now

from .. import models
from ..conf import settings
from ..conf.topics import TopicSettings, each_settings, topic_settings
from .keys import KEYS_PER_QUERY
from .writer import alias

TOPICS_PER_QUERY: Final = 500
PRUNING_ROW: Final = "realtime:prune"  # a name that no topic can have
DELETE_BATCH: Final = 1_000  # rows deleted in one transaction, so that publishers can get between


def claim_pruning(interval: float) -> bool:
    """Return whether no process has claimed the pruning for `interval` seconds; this one has then.

    By the database's clock.
    """
    topics = models.Topic.objects.using(alias())
    due = topics.filter(name=PRUNING_ROW, created__lte=Now() - timedelta(seconds=interval))
    if due.update(created=Now()):
        return True
    _, is_first = topics.get_or_create(name=PRUNING_ROW, defaults={"created": Now()})
    return is_first


def prune() -> dict[str, int]:
    """Delete the events and the publishers' keys that have expired; return the events by topic."""
    _forget_keys()
    pruned: dict[str, int] = {}
    for topic in _topics_with_expired_events():
        if dropped := _drop_through(topic, _last_expired(topic), topic.oldest):
            pruned[topic.name] = dropped
    return pruned


def _forget_keys() -> None:
    age = timedelta(seconds=settings.IDEMPOTENCY_SECONDS)
    keys = models.IdempotencyKey.objects.using(alias())
    expired = keys.filter(created__lt=Now() - age).order_by("created").values_list("pk", flat=True)
    while page := list(expired[:KEYS_PER_QUERY]):
        keys.filter(pk__in=page).delete()


def _topics_with_expired_events() -> Iterator[Any]:
    """Yield topics whose oldest event has expired, with its offset, in pages."""
    events = models.Event.objects.filter(topic=OuterRef("pk")).order_by("offset")
    is_due = Q(oldest__lte=F("head") - _by_topic(_most)) | has_expired("since")
    topics = (
        models.Topic.objects.using(alias())
        .annotate(
            oldest=Subquery(events.values("offset")[:1]),
            since=Subquery(events.values("created")[:1]),
        )
        .filter(is_due)
        .order_by("pk")
    )
    # Not one long query: on SQLite a connection that is still reading can't begin to write once
    # another has written.
    last = 0
    while page := list(topics.filter(pk__gt=last)[:TOPICS_PER_QUERY]):
        yield from page
        last = page[-1].pk


def has_expired(since: str, model: type[Model] = models.Topic, name: str = "name") -> Q:
    """Return the condition that `since` is longer ago than the retention of the row's topic."""
    ages = [own.retention_seconds for own in each_settings() if own.retention_seconds is not None]
    if not ages:
        return Q(pk__in=[])
    # First what an index on the time can tell.
    is_old = Q((f"{since}__lt", Now() - timedelta(seconds=min(ages))))
    return is_old & Q((f"{since}__lt", _by_topic(_cutoff, model, name)))


def _by_topic(
    value: Callable[[TopicSettings], Expression],
    model: type[Model] = models.Topic,
    column: str = "name",
) -> Expression:
    """Return an expression for what `value` makes of the settings of a row's topic, by its name."""
    connection = connections[alias()]
    table, name = map(connection.ops.quote_name, (model._meta.db_table, column))
    # All compare as `TOPICS` does, with regard to case.
    operator = {"sqlite": "GLOB", "mysql": "LIKE BINARY"}.get(connection.vendor, "LIKE")
    cases = []
    for pattern in settings.TOPICS:
        text = pattern.text
        if operator != "GLOB":
            text = text.replace("_", r"\_").replace("*", "%")
        matches = RawSQL(f"{table}.{name} {operator} %s", [text], output_field=BooleanField())
        cases.append(When(matches, then=value(TopicSettings.of(pattern.own))))
    return Case(*cases, default=value(TopicSettings.of({})))


def _most(own: TopicSettings) -> Expression:
    return Cast(Value(own.retention_events), BigIntegerField())


def _cutoff(own: TopicSettings) -> Expression:
    if own.retention_seconds is None:
        return Cast(Value(None), DateTimeField())
    return Now() - timedelta(seconds=own.retention_seconds)


def _last_expired(topic: models.Topic) -> int:
    """Return the offset up to which retention wants the events gone; 0 for none."""
    last = 0
    own = topic_settings(topic.name)
    if own.retention_events is not None:
        last = topic.head - own.retention_events
    if own.retention_seconds is not None:
        # By the database's clock, as `created` is: that of a host may be wrong.
        is_young = Q(created__gte=Now() - timedelta(seconds=own.retention_seconds))
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
