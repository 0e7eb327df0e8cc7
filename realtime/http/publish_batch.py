"""Several events in one request's body, all of them published or none."""

from collections.abc import Sequence
from typing import Any, Final

from ..access.permissions import require
from ..access.user_info import publisher_of, sender_meta
from ..conf import settings
from ..delivery.publish_many import Publication, numbered, publish_many_now
from ..delivery.published import publishing_via
from ..events.payload import DEFAULT_TYPE, decode_data
from ..events.topic import validate_topic
from ..events.trace_context import incoming_trace
from ..exceptions import DataTooLarge, InvalidData, RealtimeError
from ..limits.client import Client
from ..limits.publishing import admit, note_published

MEMBERS: Final = ("topic", "data", "type", "key")


async def publish_batch(
    client: Client, body: bytes, traceparent: str | None
) -> tuple[int, dict[str, list[str | None]]]:
    """Publish a body's events with the client's user as sender, who needs the right to each topic.

    Returns the answer's status and content: 201, or 200 where all came before with their keys.
    """
    await client.check("PUBLISHES")  # before it is parsed
    try:
        events = parse_batch(body)
    except RealtimeError:
        await client.owe("PUBLISHES", 1)  # it has cost as much as one that is good
        raise
    await client.take("PUBLISHES", len(events))
    user = client.identity.user
    for topic in dict.fromkeys(event["topic"] for event in events):
        await require(user, topic, "publish")
    await admit(client, [event["topic"] for event in events])
    meta, publisher = await sender_meta(user), publisher_of(user)
    with publishing_via("http"), incoming_trace(traceparent):
        stored = await publish_many_now(
            {**event, "meta": meta, "publisher": publisher} for event in events
        )
    await note_published(client, stored)
    status = 200 if all(event.is_repeated for event in stored) else 201
    return status, {"ids": [event.id for event in stored]}


def parse_batch(body: bytes) -> list[Publication]:
    """Return the events of a JSON array, or of NDJSON: an object in each line.

    Each has `topic` and `data`, and may have `type` and `key`, no others. Raises `InvalidData`,
    `InvalidTopic`, or `DataTooLarge` over `MAX_BATCH_EVENTS` or `MAX_BATCH_BYTES`.
    """
    if len(body) > settings.MAX_BATCH_BYTES:
        raise DataTooLarge(
            f"The body is over {settings.MAX_BATCH_BYTES} bytes (MAX_BATCH_BYTES): send the events "
            "in several requests."
        )
    is_array = body.lstrip().startswith(b"[")
    items: Sequence[Any] = decode_data(body) if is_array else body.splitlines()
    items = items if is_array else [line for line in items if line.strip()]
    if len(items) > settings.MAX_BATCH_EVENTS:
        raise DataTooLarge(
            f"These are {len(items)} events, more than the {settings.MAX_BATCH_EVENTS} of "
            "MAX_BATCH_EVENTS: send them in several requests."
        )
    if not items:
        raise InvalidData('Send a JSON array of {"topic": ..., "data": ...}, or one in each line.')
    events = []
    for number, item in enumerate(items, 1):
        with numbered(number):
            events.append(_publication(item if is_array else decode_data(item)))
    return events


def _publication(item: Any) -> Publication:
    if not isinstance(item, dict) or not {"topic", "data"} <= item.keys():
        raise InvalidData('An event is an object with "topic" and "data".')
    if unknown := item.keys() - MEMBERS:
        raise InvalidData(f"An event has no {min(unknown)!r:.90}: it has {', '.join(MEMBERS)}.")
    return {
        "topic": validate_topic(item["topic"]),
        "data": item["data"],
        "type": item.get("type", DEFAULT_TYPE),
        "key": item.get("key"),
    }
