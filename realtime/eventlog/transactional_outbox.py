"""The transactional outbox of a log outside of the database: rows that commit with the site's.

What a transaction publishes is a row until it is stored in the log. Its own process stores it
right after the commit; where that has failed, or the process is gone, another does. Each event has
a key, so that the log stores it once, whoever comes first, and however often.
"""

import json
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from django.db import DatabaseError
from django.db.models import QuerySet
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now

from .. import models
from ..conf import settings
from ..processes.registry import this_process
from .base import NewEvent
from .writer import alias

logger = logging.getLogger("realtime.eventlog")

PUBLISHER: Final = "realtime.outbox"  # whose keys those events get that have none
ENTRIES: Final = 100  # that are taken over at once


def put(batch: Sequence[NewEvent]) -> tuple[int, list[NewEvent]]:
    """Write a batch in the open transaction; return its row's primary key and its keyed events."""
    keyed = [
        event._replace(key=secrets.token_hex(16), publisher=PUBLISHER)
        if event.key is None
        else event
        for event in batch
    ]
    row = _rows().create(process=this_process(), events=json.dumps(keyed), created=Now())
    return row.pk, keyed


def remove(entries: Mapping[int, Sequence[NewEvent]], forget: Callable[..., object]) -> None:
    """Delete rows of this process whose events are in the log.

    `forget` gets the events whose keys nobody will ask for any more.
    """
    own = _rows().filter(pk__in=entries, process=this_process())
    try:
        count, _ = own.delete()
    except DatabaseError:
        logger.warning("Can't tell the outbox what is stored; it is found out later", exc_info=True)
        return
    if count == len(entries):  # nobody has taken one over, and might still store it
        events = [event for batch in entries.values() for event in batch]
        forget([event for event in events if event.publisher == PUBLISHER])


def new_mover() -> str:
    """Return a name for what takes rows over."""
    return f"moved.{secrets.token_hex(16)}"


def take_over(mover: str, after: int = 0) -> dict[int, list[NewEvent]]:
    """Return the batches of rows that have not been moved for `PROCESS_LEASE_SECONDS`.

    The oldest first, those after the row `after`. They are the mover's own until as much time has
    passed again, or they are given back.
    """
    rows = _rows().filter(created__lt=_due())
    found = list(rows.filter(pk__gt=after).order_by("pk").values_list("pk", flat=True)[:ENTRIES])
    if not found:
        return {}
    # Its process deletes only what is still its own, so first of all they are not.
    rows.filter(pk__in=found).update(process=mover, created=Now())
    own = _rows().filter(process=mover, pk__gt=after)
    taken = own.order_by("pk").values_list("pk", "events")
    return {pk: [NewEvent(*event) for event in json.loads(text)] for pk, text in taken}


def put_back(mover: str, moved: Sequence[int], kept: Sequence[int]) -> None:
    """Delete rows that were taken over and are in the log; give the others back, which are due.

    The keys of the former are forgotten in time. Those that another mover has by now are its own.
    """
    _rows().filter(pk__in=moved).delete()
    _rows().filter(pk__in=kept, process=mover).update(created=_due())


def _due() -> CombinedExpression:
    """Return the time before which a row must have been moved last to be due now."""
    return Now() - timedelta(seconds=settings.PROCESS_LEASE_SECONDS)


def _rows() -> "QuerySet[models.OutboxEntry]":
    return models.OutboxEntry.objects.using(alias())
