"""`publish` and `apublish`: the way in, from anywhere in Django."""

import asyncio
import logging
import time
from functools import partial
from typing import Final

from asgiref.sync import async_to_sync, sync_to_async
from channels.layers import get_channel_layer

from ..conf import settings
from ..eventlog import get_event_log
from ..eventlog.base import NewEvent
from ..events.event import Event
from ..events.payload import DEFAULT_TYPE, decode_data, encode_data, validate_type
from ..events.topic import user_topic, validate_topic
from ..exceptions import DataTooLarge
from ..utils.aio import spawn
from .announcements import to_message
from .hub import running_hubs

logger = logging.getLogger("realtime.publishing")

SILENT_SECONDS: Final = 10.0  # a layer that has timed out is left alone for so long
BODY_OVERHEAD: Final = 6  # JSON may write one byte of data as six characters (an escaped one)

_silent_until = 0.0  # by the monotonic clock


def publish(
    topic: str, data: object, *, type: str = DEFAULT_TYPE, ephemeral: bool = False
) -> Event:
    """Append an event to the topic's log and announce it; from views, signals, tasks, the shell.

    Inside a transaction it commits or rolls back with it: nobody hears of it before the commit.
    Until then the topic stays locked for other publishers, so publish late in a long transaction.
    `ephemeral` events are not logged: they reach who listens now, or nobody.

    Raises `InvalidTopic`, `InvalidData`, `DataTooLarge` (over `MAX_EVENT_BYTES`) or
    `InvalidEventType`; nothing was stored then.
    """
    new = make_event(topic, data, type)
    log = get_event_log()
    event = new.to_event() if ephemeral else log.append([new])[0]
    log.on_commit(lambda: _announce_from_thread(event))
    return event


async def apublish(
    topic: str, data: object, *, type: str = DEFAULT_TYPE, ephemeral: bool = False
) -> Event:
    """As `publish`, for async code."""
    # In the thread that Django gives this context, so that it joins a transaction that is open
    # there (async_to_sync below transaction.atomic).
    return await sync_to_async(publish)(topic, data, type=type, ephemeral=ephemeral)


async def publish_now(
    topic: str, data: object, *, type: str = DEFAULT_TYPE, ephemeral: bool = False
) -> Event:
    """As `apublish`, for code that knows that no transaction is open: views and consumers.

    Spares the request's own thread and database connection.
    """
    new = make_event(topic, data, type)
    if ephemeral:
        event = new.to_event()
        await announce(event)
        return event
    # Announced by who stores it: a caller that is cancelled meanwhile takes nothing back.
    announcing: list[asyncio.Task[None]] = []

    def then(stored: Event) -> None:
        if not _hand_over(stored):
            announcing.append(spawn(_tell_layer(stored)))

    event = await get_event_log().aappend(new, then)
    for task in announcing:
        await asyncio.shield(task)
    return event


async def publish_body(topic: str, body: bytes, type: str) -> Event:
    """As `publish_now`, of an HTTP request's body: the data as JSON (UTF-8).

    Raises `DataTooLarge` for a body that can't be an event before it is parsed.
    """
    check_body_size(len(body))
    return await publish_now(topic, decode_data(body), type=type)


def check_body_size(size: int) -> None:
    """Raise `DataTooLarge` where a body of so many bytes can't be an event."""
    limit = settings.MAX_EVENT_BYTES * BODY_OVERHEAD
    if size > limit:
        raise DataTooLarge(f"The body is over {limit} bytes; publish a reference instead.")


def send_to_user(user_id: object, data: object, *, type: str = DEFAULT_TYPE) -> Event:
    """Publish to all of one user's sockets and streams, on every worker: topic `user.<pk>`."""
    return publish(user_topic(user_id), data, type=type)


def make_event(topic: str, data: object, type: str) -> NewEvent:
    """Return the event, checked and encoded but not stored."""
    text = encode_data(data, settings.MAX_EVENT_BYTES)
    return NewEvent(validate_topic(topic), validate_type(type), text)


async def announce(event: Event) -> None:
    """Tell the hubs of this process and, through the layer, those of the others."""
    if not _hand_over(event):
        await _tell_layer(event)


async def _tell_layer(event: Event) -> None:
    """Tell it from here, and wait: nobody is served here, and the loop may end with its caller.

    A layer that does not answer is not waited for again and again: for `SILENT_SECONDS` it is
    passed over. The events are in the log, and the servers find them there.
    """
    global _silent_until
    layer = get_channel_layer(settings.CHANNEL_LAYER)
    if layer is None or time.monotonic() < _silent_until:
        return
    try:
        async with asyncio.timeout(settings.ANNOUNCE_TIMEOUT_SECONDS):
            await layer.group_send(event.topic, to_message([event]))
    except TimeoutError:
        _silent_until = time.monotonic() + SILENT_SECONDS
        logger.warning(
            "The channel layer took no announcement within %g s; for %g s it is not asked again. "
            "Events are in the log meanwhile, and servers find them there.",
            settings.ANNOUNCE_TIMEOUT_SECONDS,
            SILENT_SECONDS,
        )
    except Exception as error:
        logger.warning("The channel layer took no announcement: %r", error)


def _announce_from_thread(event: Event) -> None:
    if not _hand_over(event):
        async_to_sync(announce)(event)


def _hand_over(event: Event) -> bool:
    """Give the event to this process's hubs, the first of which tells the layer."""
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    hubs = running_hubs()
    for hub in hubs:
        deliver = partial(hub.announce, event) if hub is hubs[0] else partial(hub.receive, [event])
        if hub.loop is here:
            deliver()
        else:
            hub.loop.call_soon_threadsafe(deliver)
    return bool(hubs)
