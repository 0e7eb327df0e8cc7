"""Generations in the database: each function here is one short transaction, run in a thread.

The row decides. What sets its `ended` publishes the last event in the same transaction, and nothing
is published once it is set: the process at work, a DELETE in another process, and the search for
answers whose process has died can't contradict each other, and each topic ends once.
"""

import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.db import router, transaction
from django.db.models import QuerySet
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now

from .. import models
from ..delivery.publish import make_event
from ..eventlog import get_event_log
from ..eventlog.retention import has_expired
from ..events.event import Event
from ..events.payload import DEFAULT_TYPE
from ..events.topic import user_topic
from ..exceptions import DatabaseUnavailable, KeyReused
from ..utils.primary import primary_rows
from .conf import settings
from .models import Generation, Lease
from .slots import too_many_of_one_user

SWEEP_BATCH: Final = 200  # rows read in one go

GONE: Final = "The server that was answering has gone before the answer was complete; ask again."


def running(pk: int | None = None) -> QuerySet[Generation]:
    """Return the generations that have not ended; with `pk`, at most that one."""
    rows = primary_rows(Generation).filter(ended=None)
    return rows if pk is None else rows.filter(pk=pk)


def find(user: Any, key: str, digest: str) -> Generation | None:
    """Return the user's generation of this key; raise `KeyReused` for another prompt."""
    row = primary_rows(Generation).filter(user=user, key=key).first()
    if row is not None and row.digest != digest:
        raise KeyReused(key, "another prompt")
    return row


def create(user: Any, key: str | None, digest: str, model: str) -> tuple[Generation, bool]:
    """Return a new generation and True, or the one that the key has already, and False."""
    with transaction.atomic(using=alias()):
        lock(user)
        if key is not None and (row := find(user, key, digest)):
            return row, False
        require_room(user)
        name = secrets.token_hex(8)
        topic = f"{user_topic(user.pk)}.chat.{name}"
        row = Generation.objects.create(
            user=user,
            name=name,
            topic=topic,
            key=key,
            digest=digest,
            model=model[:100],
            beat=Now(),
            heard=Now(),
        )
        return row, True


def lock(user: Any) -> None:
    """Lock the user: of two requests at once, the second sees what the first has begun."""
    get_user_model()._base_manager.select_for_update().values_list("pk").get(pk=user.pk)


def require_room(user: Any) -> None:
    """Raise `TooManyRequests` unless `user`, who is locked, may begin another answer.

    What a process was at that has gone counts until `LLM_LEASE_SECONDS` have passed.
    """
    alive = {"user": user.pk, "beat__gte": expiry()}
    published = running().filter(**alive).values_list("pk")
    on_requests = primary_rows(Lease).filter(**alive).values_list("pk")
    if published.union(on_requests, all=True).count() >= settings.LLM_PER_USER:
        raise too_many_of_one_user()


def expiry() -> CombinedExpression:
    """Return when an answer has shown its last sign of life whose process counts as gone."""
    # By the database's clock throughout: those of several hosts may disagree.
    return Now() - timedelta(seconds=settings.LLM_LEASE_SECONDS)


def append(row: Generation, texts: list[str]) -> list[Event] | None:
    """Log the texts with a sign of life; return None if it has ended or has no listeners."""
    log = get_event_log()
    with transaction.atomic(using=alias()):
        unheard = timedelta(seconds=settings.LLM_UNHEARD_SECONDS)
        if not running(row.pk).filter(heard__gte=Now() - unheard).update(beat=Now()):
            return None
        new = [make_event(row.topic, {"token": text}, DEFAULT_TYPE) for text in texts]
        events = log.append(new)
    return _stored(events)


def end(rows: QuerySet[Generation], type: str, data: dict[str, Any]) -> Event | None:
    """End the one row and return its last event; None if it has ended already."""
    row = rows.first()
    if row is None:
        return None
    with transaction.atomic(using=alias()):
        outcome = data.get("stop_reason", "error")[:20]
        usage = data.get("usage", {})
        tokens = {name: usage.get(name) for name in ("input_tokens", "output_tokens")}
        if not rows.filter(pk=row.pk).update(ended=Now(), outcome=outcome, **tokens):
            return None
        events = get_event_log().append([make_event(row.topic, data, type)])
    return _stored(events)[0]


def cancel(name: str, user: Any) -> tuple[bool, Event | None]:
    """Return whether `user` may cancel a generation of that name, and its last event."""
    row = primary_rows(Generation).filter(name=name).first()
    if row is None or not (row.user_id == user.pk or _may_change(user)):
        return False, None
    return True, end_cancelled(name)


def _may_change(user: Any) -> bool:
    return hasattr(user, "has_perm") and user.has_perm("realtime_llm.change_generation")


def end_cancelled(name: str) -> Event | None:
    """End a generation as cancelled; return its last event, or None if it has ended."""
    return end(running().filter(name=name), "done", {"stop_reason": "cancelled"})


def note_listeners(topics: Sequence[str]) -> list[Event]:
    """Note that these topics have readers; return the last events of the orphans among them."""
    events: list[Event] = []
    for first in range(0, len(topics), SWEEP_BATCH):
        rows = running().filter(topic__in=topics[first : first + SWEEP_BATCH])
        if pks := list(rows.values_list("pk", flat=True)):
            running().filter(pk__in=pks).update(heard=Now())
            events += _end_orphans(rows)
    return events


def sweep() -> list[Event]:
    """End the answers whose process has died and return their last events; apply retention."""
    events = _end_orphans(running())
    old = primary_rows(Generation).filter(has_expired("ended", Generation, "topic"))
    names = list(old.values_list("topic", flat=True)[:SWEEP_BATCH])
    if names:  # retention has dropped, or is about to drop, their events
        models.Topic.objects.filter(name__in=names).delete()
        Generation.objects.filter(topic__in=names).delete()
    return events


def _end_orphans(rows: QuerySet[Generation]) -> list[Event]:
    """End those of `rows` without a sign of life for `LLM_LEASE_SECONDS`; return their events."""
    late = rows.filter(beat__lt=expiry())
    events = []
    for row in late[:SWEEP_BATCH]:
        # `late` again: it may have shown one, or ended, since the rows were read.
        if event := end(late.filter(pk=row.pk), "error", {"detail": GONE}):
            events.append(event)
    return events


def _stored(events: list[Event]) -> list[Event]:
    """Return the events; raise where a log that waits for the commit could not store them."""
    if any(event.is_pending for event in events):
        raise DatabaseUnavailable
    return events


def alias() -> str:
    """Return the alias of the database that has the answers."""
    # That of the log: rows and events commit together.
    return router.db_for_write(models.Event)
