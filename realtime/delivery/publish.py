"""Publish: the way in for an event, from anywhere in Django."""

from typing import Any, Final

from asgiref.sync import sync_to_async
from django.core.serializers.json import DjangoJSONEncoder

from ..conf import settings
from ..eventlog import get_event_log
from ..eventlog.base import NewEvent
from ..events.event import Event
from ..events.payload import DEFAULT_TYPE, encode_data, encode_meta, validate_type
from ..events.topic import user_topic, validate_topic
from .announce import Announcement, announce
from .pending import PendingAnnouncement

_to_json: Final = DjangoJSONEncoder().default  # of dates, decimals, UUIDs and lazy strings


def publish(
    topic: str,
    data: object,
    *,
    type: str = DEFAULT_TYPE,
    ephemeral: bool = False,
    meta: dict[str, Any] | None = None,
) -> Event:
    """Append an event to the topic's log and announce it; from views, signals, tasks, the shell.

    Inside a transaction it commits or rolls back with it, and is delivered after the commit.
    Until then the topic stays locked for other publishers, so publish late in a long transaction.
    `ephemeral` events are not logged: they reach only readers that are connected now. Dates,
    decimals, UUIDs and lazy strings in `data` become what Django's JSON encoder makes of them.
    `meta`, a dict, goes to those readers that ask for it.

    Raises `InvalidTopic`, `InvalidData`, `DataTooLarge` (over `MAX_EVENT_BYTES`, `MAX_META_BYTES`)
    or `InvalidEventType`; nothing was stored then.
    """
    new = make_event(topic, data, type, meta)
    log = get_event_log()
    event = new.to_event() if ephemeral else log.append([new])[0]
    log.on_commit(PendingAnnouncement(event).send)
    return event


async def apublish(
    topic: str,
    data: object,
    *,
    type: str = DEFAULT_TYPE,
    ephemeral: bool = False,
    meta: dict[str, Any] | None = None,
) -> Event:
    """Publish from async code, as `publish` does."""
    # In the thread that Django gives this context, so that it joins a transaction that is open
    # there (async_to_sync below transaction.atomic).
    return await sync_to_async(publish)(topic, data, type=type, ephemeral=ephemeral, meta=meta)


async def publish_now(
    topic: str,
    data: object,
    *,
    type: str = DEFAULT_TYPE,
    ephemeral: bool = False,
    meta: dict[str, Any] | None = None,
) -> Event:
    """Publish where no transaction is open, as in async views and consumers.

    Spares the request's own thread and database connection.
    """
    new = make_event(topic, data, type, meta)
    if ephemeral:
        event = new.to_event()
        await announce([event])
        return event
    # Announced as soon as it is stored: a caller that is cancelled meanwhile takes nothing back.
    announcement = Announcement()
    event = await get_event_log().aappend(new, announcement)
    await announcement
    return event


def send_to_user(user_id: object, data: object, *, type: str = DEFAULT_TYPE) -> Event:
    """Publish to all of one user's sockets and streams, on every worker: topic `user.<pk>`."""
    return publish(user_topic(user_id), data, type=type)


async def asend_to_user(user_id: object, data: object, *, type: str = DEFAULT_TYPE) -> Event:
    """Publish to all of one user's sockets and streams from async code, as `send_to_user` does."""
    return await apublish(user_topic(user_id), data, type=type)


def make_event(topic: str, data: object, type: str, meta: dict[str, Any] | None = None) -> NewEvent:
    """Return the event, checked and encoded but not stored."""
    text = encode_data(data, settings.MAX_EVENT_BYTES, _to_json)
    more = None if meta is None else encode_meta(meta, settings.MAX_META_BYTES, _to_json)
    return NewEvent(validate_topic(topic), validate_type(type), text, more)
