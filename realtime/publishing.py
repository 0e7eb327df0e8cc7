"""`publish` and `apublish`: the way in, from anywhere in Django."""

import asyncio
import logging
from typing import Final

from asgiref.sync import async_to_sync, sync_to_async
from channels.layers import get_channel_layer

from .conf import settings
from .events import Event
from .exceptions import DataTooLarge
from .hub import running_hubs, send_to_layer
from .log import get_log
from .topics import user_topic, validate_topic
from .wire.data import DEFAULT_TYPE, decode_data, encode_data, validate_type

logger = logging.getLogger("realtime.publishing")

BODY_OVERHEAD: Final = 6  # JSON may write one byte of data as six characters (an escaped one)


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
    event = make_event(topic, data, type)
    log = get_log()
    if not ephemeral:
        event = log.append(event.topic, event.type, event.data)
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
    event = make_event(topic, data, type)
    if not ephemeral:
        event = await get_log().append_now(event.topic, event.type, event.data)
    await announce(event)
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


def make_event(topic: str, data: object, type: str) -> Event:
    """The event, checked and encoded but not stored."""
    text = encode_data(data, settings.MAX_EVENT_BYTES)
    return Event(validate_topic(topic), validate_type(type), text)


async def announce(event: Event) -> None:
    """Tell the hubs of this process and, through the layer, those of the others."""
    if not _hand_over(event):
        # Nobody is served here, and this loop may end with its caller: wait for the layer.
        layer = get_channel_layer(settings.CHANNEL_LAYER)
        if layer is not None:
            try:
                await send_to_layer(layer, event)
            except Exception as error:
                # The event is in the log: the servers find it there.
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
        deliver = hub.announce if hub is hubs[0] else hub.receive
        if hub.loop is here:
            deliver(event)
        else:
            hub.loop.call_soon_threadsafe(deliver, event)
    return bool(hubs)
