"""Publish: the way in for an event, from anywhere in Django."""

from typing import Any, Final

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.core.serializers.json import DjangoJSONEncoder

from ..conf import settings
from ..eventlog import get_event_log
from ..eventlog.base import NewEvent
from ..events.event import Event
from ..events.key import validate_key
from ..events.payload import DEFAULT_TYPE, encode_data, encode_meta, validate_type
from ..events.topic import user_topic, validate_topic
from ..events.trace_context import add_traceparent
from ..exceptions import InvalidKey
from .announce import Announcement
from .pending import PendingAnnouncement
from .published import Publishing, published_via

IN_ASYNC: Final = (
    "{0}() waits for the log: in async code, `await realtime.a{0}(...)`, or, where no transaction "
    "is open, `await realtime.{0}_now(...)`."
)
to_json: Final = DjangoJSONEncoder().default  # of dates, decimals, UUIDs and lazy strings


def publish(
    topic: str,
    data: object,
    *,
    type: str = DEFAULT_TYPE,
    ephemeral: bool = False,
    meta: dict[str, Any] | None = None,
    key: str | None = None,
    publisher: str = "",
) -> Event:
    """Append an event to the topic's log and announce it; from views, signals, tasks, the shell.

    Inside a transaction it commits or rolls back with it, and is delivered after the commit.
    Until then the topic stays locked for other publishers, so publish late in a long transaction.
    `ephemeral` events are not logged: they reach only readers that are connected now. Dates,
    decimals, UUIDs and lazy strings in `data` become what Django's JSON encoder makes of them.
    `meta`, a dict, goes to those readers that ask for it. In an OpenTelemetry span it gets the
    span's `traceparent`.

    With a `key`, the same may be published again within `IDEMPOTENCY_SECONDS`: it is stored once,
    and what is returned has the first one's id and `is_repeated`. A key is one of the topic and of
    the `publisher`: name them where they bring keys of their own.

    Raises `InvalidTopic`, `InvalidData`, `DataTooLarge` (over `MAX_EVENT_BYTES`, `MAX_META_BYTES`),
    `InvalidEventType`, `InvalidKey` or, where the key came with another type or other data,
    `KeyReused`; nothing was stored then.
    """
    log = get_event_log()
    try:
        with Publishing():
            new = make_event(topic, data, type, meta, key, publisher)
            event = _ephemeral(new) if ephemeral else log.append([new])[0]
        if not event.is_repeated:
            log.on_commit(PendingAnnouncement(event).send)
    except SynchronousOnlyOperation:
        raise SynchronousOnlyOperation(IN_ASYNC.format("publish")) from None
    return event


async def apublish(
    topic: str,
    data: object,
    *,
    type: str = DEFAULT_TYPE,
    ephemeral: bool = False,
    meta: dict[str, Any] | None = None,
    key: str | None = None,
    publisher: str = "",
) -> Event:
    """Publish from async code, as `publish` does."""
    # In the thread that Django gives this context, so that it joins a transaction that is open
    # there (async_to_sync below transaction.atomic).
    more: dict[str, Any] = {"meta": meta, "key": key, "publisher": publisher}
    return await sync_to_async(publish)(topic, data, type=type, ephemeral=ephemeral, **more)


async def publish_now(
    topic: str,
    data: object,
    *,
    type: str = DEFAULT_TYPE,
    ephemeral: bool = False,
    meta: dict[str, Any] | None = None,
    key: str | None = None,
    publisher: str = "",
) -> Event:
    """Publish where no transaction is open, as in async views and consumers.

    Spares the request's own thread and database connection.
    """
    announcement = Announcement()
    announcement.via = published_via.get()
    more: dict[str, Any] = {"meta": meta, "key": key, "publisher": publisher}
    return await publish_with(announcement, topic, data, type=type, ephemeral=ephemeral, **more)


async def publish_with(
    announcement: Announcement,
    topic: str,
    data: object,
    *,
    type: str,
    ephemeral: bool,
    meta: dict[str, Any] | None,
    key: str | None,
    publisher: str,
) -> Event:
    """Publish as `publish_now` does, with an announcement of one's own.

    `announcement` is called as soon as the event is stored, also where the caller was cancelled
    meanwhile.
    """
    with Publishing():
        new = make_event(topic, data, type, meta, key, publisher)
        if ephemeral:
            event = _ephemeral(new)
            announcement([event])
        else:
            [event] = await get_event_log().aappend([new], announcement)
    await announcement
    return event


def send_to_user(user_id: object, data: object, *, type: str = DEFAULT_TYPE) -> Event:
    """Publish to `user.<pk>`: to the user's sockets and streams that read it, on every worker."""
    return publish(user_topic(user_id), data, type=type)


async def asend_to_user(user_id: object, data: object, *, type: str = DEFAULT_TYPE) -> Event:
    """Publish to `user.<pk>` from async code, as `send_to_user` does."""
    return await apublish(user_topic(user_id), data, type=type)


def make_event(
    topic: str,
    data: object,
    type: str = DEFAULT_TYPE,
    meta: dict[str, Any] | None = None,
    key: str | None = None,
    publisher: str = "",
) -> NewEvent:
    """Return the event, checked and encoded but not stored."""
    text = encode_data(data, settings.MAX_EVENT_BYTES, to_json)
    more = None if meta is None else encode_meta(meta, settings.MAX_META_BYTES, to_json)
    own = None if key is None else validate_key(key)
    more = add_traceparent(more)
    return NewEvent(validate_topic(topic), validate_type(type), text, more, own, publisher)


def _ephemeral(new: NewEvent) -> Event:
    if new.key is not None:
        raise InvalidKey("An ephemeral event is not kept, nor is its key: leave the key out.")
    return new.to_event()
