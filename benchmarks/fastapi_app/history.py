"""Row 8 and 12: each topic's last events, in a Redis Stream of its own.

Publishing is one script: the event gets its id, goes into the stream and out to all workers by
pub/sub, in the same order. Ids are microseconds and rise over all topics, so that one id tells how
far a stream of several topics has come.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from .broker import client
from .events import Event

CHANNEL = "events"
KEPT = 1_000  # events of a topic, about
KEPT_SECONDS = 86_400  # after the last of them
PAGE = 500
MAX_ID = 2**53

publishing = client.register_script("""
local now = redis.call('TIME')
local id = math.max(now[1] * 1000000 + now[2], (redis.call('GET', 'events:last') or 0) + 1)
id = string.format('%.0f', id)
redis.call('SET', 'events:last', id)
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], id .. '-0', 'event', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('PUBLISH', ARGV[1], id .. ' ' .. ARGV[2])
return id
""")


class Past(NamedTuple):
    """What followed an id; nothing, and not `complete`, where the streams no longer go back to it.

    `newest` is the id that it goes up to.
    """

    events: list[Event]
    newest: int
    complete: bool


async def publish(topic: str, data: Any, event: str = "message", kept: int = KEPT) -> str:
    """Keep an event and send it to all workers; its id."""
    body = Event(0, topic, event, data).body
    event_id: bytes = await publishing([key(topic)], [CHANNEL, body, kept, KEPT_SECONDS])
    return event_id.decode()


async def since(topics: Sequence[str], after: int) -> Past:
    """All that followed an id on these topics, read at one moment."""
    pipeline = client.pipeline()
    for topic in topics:
        pipeline.xinfo_stream(key(topic))
        pipeline.xrange(key(topic), f"({after}")
    answers = await pipeline.execute(raise_on_error=False)
    infos = [info for info in answers[::2] if not isinstance(info, ResponseError)]  # no such key
    newest = max((number(info["last-generated-id"]) for info in infos), default=0)
    if after and not all(goes_back(info, after) for info in infos):
        return Past([], newest, False)
    events = [parse(entry) for entries in answers[1::2] for entry in entries]
    return Past(sorted(events, key=lambda event: event.id), max(newest, after), True)


async def newest(topic: str) -> int:
    """The id of the topic's last event; 0 if there is none."""
    entries = await client.xrevrange(key(topic), count=1)
    return number(entries[0][0]) if entries else 0


async def read(topic: str, after: int, limit: int | None) -> AsyncIterator[list[Event]]:
    """The kept events of a topic, in pages."""
    while limit is None or limit > 0:
        count = PAGE if limit is None else min(PAGE, limit)
        entries = await client.xrange(key(topic), f"({after}", count=count)
        if entries:
            yield [parse(entry) for entry in entries]
            after = number(entries[-1][0])
        if len(entries) < count:
            return
        limit = None if limit is None else limit - count


def goes_back(info: dict[str, Any], after: int) -> bool:
    """Whether nothing that followed the id has been trimmed."""
    if info["length"] == info["entries-added"]:
        return True
    return info["length"] > 0 and number(info["first-entry"][0]) <= after


def key(topic: str) -> str:
    """The stream's name in Redis."""
    return f"topic:{topic}"


def parse(entry: tuple[bytes, dict[bytes, bytes]]) -> Event:
    """An event from an entry of its stream."""
    return Event.parse(number(entry[0]), entry[1][b"event"])


def number(entry_id: bytes | str) -> int:
    """Our id in an entry's."""
    return int(entry_id[:-2])
