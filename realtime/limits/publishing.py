"""Limits of publications: how long, how often by topic, and how many topics a client may begin."""

from collections import Counter
from collections.abc import Collection, Sequence
from time import monotonic_ns
from typing import Final

from ..conf import settings
from ..conf.topics import topic_settings
from ..eventlog import get_event_log
from ..events.event import Event
from .client import Client, refusal
from .exchange import get_limiter

BODY_OVERHEAD: Final = 6  # JSON may write one byte of data as six characters (an escaped one)


def max_body_bytes() -> int:
    """Return how long the JSON of an event's data may be that a client sends."""
    return int(settings.MAX_EVENT_BYTES * BODY_OVERHEAD)


async def admit(client: Client, topics: Sequence[str]) -> None:
    """Count a client's events of `topics`; raise `RateLimited` or `DataTooLarge`.

    Check the permission to publish first: a client without it could use up the `PUBLISH_RATE`.
    """
    over = client.is_over("TOPICS")
    # Only then is it worth a query which of them are new.
    if over is not None and await _has_new(topics):
        raise refusal(over, monotonic_ns(), 1)
    for topic in topics:
        if topic_settings(topic).publish_rate is not None:
            _take(topics)
            break


async def note_published(client: Client, events: Sequence[Event]) -> None:
    """Count the topics that began with these events."""
    if made := sum(event.offset == 1 and not event.is_repeated for event in events):
        await client.owe("TOPICS", made)


async def _has_new(topics: Collection[str]) -> bool:
    return bool({*topics} - {*await get_event_log().heads([*topics])})


def _take(topics: Sequence[str]) -> None:
    limiter, now, counted = get_limiter(), monotonic_ns(), []
    for topic, count in Counter(topics).items():
        if rate := topic_settings(topic).publish_rate:
            bucket = limiter.make_bucket(("PUBLISH_RATE", topic), rate)
            if count > rate.burst or bucket.wait(now, count):
                raise refusal(bucket, now, count)
            counted.append((bucket, count))
    for bucket, count in counted:
        bucket.spend(now, count)
