"""Publish several events, all of them or none."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NotRequired, TypedDict

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation

from ..eventlog import get_event_log
from ..eventlog.base import NewEvent
from ..events.event import Event
from ..exceptions import InvalidData, RealtimeError
from .announce import Announcement
from .pending import PendingAnnouncement
from .publish import IN_ASYNC, make_event
from .published import Publishing, published_via


class Publication(TypedDict):
    """An event that is to be published: the arguments of `publish` by their names."""

    topic: str
    data: object
    type: NotRequired[str]
    meta: NotRequired[dict[str, Any] | None]
    key: NotRequired[str | None]
    publisher: NotRequired[str]


_NEEDED: Final = Publication.__required_keys__
_KNOWN: Final = _NEEDED | Publication.__optional_keys__


def publish_many(events: Iterable[Publication]) -> list[Event]:
    """Append events to their topics' logs, all of them or none, and announce them together.

    Each is a dict with `topic` and `data`, and with `type`, `meta`, `key` and `publisher` where
    `publish` would get them. Returns the events in their order; of those whose key came before,
    the first ones' ids. Raises what `publish` does, with the number of the event.
    """
    log = get_event_log()
    with Publishing():
        try:
            stored = log.append(_make(events))
        except SynchronousOnlyOperation:
            raise SynchronousOnlyOperation(IN_ASYNC.format("publish_many")) from None
    # All are made before the first is called: it announces those that wait behind it.
    pending = [PendingAnnouncement(event) for event in stored if not event.is_repeated]
    for announcement in pending:
        log.on_commit(announcement.send)
    return stored


async def apublish_many(events: Iterable[Publication]) -> list[Event]:
    """Publish several events from async code, as `publish_many` does."""
    return await sync_to_async(publish_many)(events)


async def publish_many_now(events: Iterable[Publication]) -> list[Event]:
    """Publish several events where no transaction is open, as in async views and consumers."""
    announcement = Announcement()
    announcement.via = published_via.get()
    with Publishing():
        stored = await get_event_log().aappend(_make(events), announcement)
    await announcement
    return stored


@contextmanager
def numbered(number: int) -> Iterator[None]:
    """Say of an error which of several events it is about."""
    try:
        yield
    except RealtimeError as error:
        error.args = (f"Event {number}: {error}",)
        raise


def _make(events: Iterable[Publication]) -> list[NewEvent]:
    made = []
    for number, event in enumerate(events, 1):
        with numbered(number):
            if not _NEEDED <= event.keys() <= _KNOWN:
                raise InvalidData(
                    "An event has a topic and data, and may have type, meta, key and publisher; it "
                    f"has {', '.join(event)}."
                )
            made.append(make_event(**event))
    return made
