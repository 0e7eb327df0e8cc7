"""What a bus carries: announced events and new processes, as dicts for a layer, or as bytes."""

import json
import time
from collections.abc import Mapping
from typing import Any, Final

from django.conf import settings as django_settings

from ...events.event import Event
from ...metrics.series import Histogram
from ...processes.registry import this_process
from .base import MISSED, PEERS_TOPIC, Joined, Message
from .cipher import Cipher

BUS_LAG: Final = Histogram(
    "realtime_bus_lag_seconds",
    "How long announcements took from one process to another, by the clocks of their hosts.",
)

# The form of the messages. Processes of an earlier release understand it, and are understood.
EVENTS_TYPE: Final = "realtime.event"
JOINED_TYPE: Final = "realtime.hello"
ECHO_TYPE: Final = "realtime.echo"  # to oneself only
EVENT_FIELDS: Final = {"event": str, "data": str, "epoch": str, "offset": int}
JOINED_FIELDS: Final = {"process": str, "every": float, "asks": bool}
HELLO_LEASE: Final = 5  # of its intervals, for which a hello of an earlier release counts
MOST_LAG: Final = 3_600_000  # ms: of a clock that is wrong, or a message that is forged
HELLO_SECONDS: Final = 86_400.0  # the interval that those are told: we say it once


def encode(topic: str, message: Message, limit: int) -> bytes:
    """Return the message encrypted with SECRET_KEY, for `decode`.

    Of what would be over `limit` bytes only the topic is sent: the events are in the log. The
    ephemeral ones among them don't reach other processes.
    """
    data = _encrypt(to_message(topic, message))
    return data if len(data) <= limit else _encrypt(to_message(topic, MISSED))


def encode_parts(topic: str, message: Message, limit: int) -> list[bytes]:
    """Return the message as `encode` does, its events in as few parts as are within the limit."""
    if isinstance(message, Joined) or len(message) < 2:
        return [encode(topic, message, limit)]
    data = _encrypt(to_message(topic, message))
    if len(data) <= limit:
        return [data]
    half = len(message) // 2
    parts = message[:half], message[half:]
    return [each for part in parts for each in encode_parts(topic, part, limit)]


def decode(data: bytes) -> tuple[str, Message] | None:
    """Return topic and content of what `encode` has made; None if this process has.

    Raises ValueError for what is no message of this site: with a key of SECRET_KEY_FALLBACKS it is.
    """
    message = json.loads(_cipher().decrypt(data))
    return from_message(message)


def to_message(topic: str, message: Message) -> dict[str, Any]:
    """Return the message as a dict, of values that every layer's serializer knows."""
    if isinstance(message, Joined):
        return {
            "type": JOINED_TYPE,
            "process": message.process,
            "every": HELLO_SECONDS,
            "asks": False,
            "to": [],
            "registered": True,
        }
    return {
        "type": EVENTS_TYPE,
        "process": this_process(),
        "topic": topic,
        "at": _now_ms(),  # whole: a message of the same events has always the same size
        "events": list(map(_to_fields, message)),
    }


def from_message(message: Any) -> tuple[str, Message] | None:
    """Return topic and content of what came over the bus; None if this process sent it.

    Raises ValueError for what is no message of ours. Anything that reaches the bus can put
    anything there; a process has to survive it.
    """
    kind = _get(message, "type", str)
    if kind == JOINED_TYPE:
        process, interval, is_asking = (
            _get(message, name, kind) for name, kind in JOINED_FIELDS.items()
        )
        if process == this_process():
            return None
        if message.get("registered") is True:
            return PEERS_TOPIC, Joined(process)
        return PEERS_TOPIC, Joined(process, HELLO_LEASE * interval, is_asking)
    if kind == ECHO_TYPE:
        return None
    if kind != EVENTS_TYPE:
        raise ValueError(f"expected type {EVENTS_TYPE!r}, got {kind!r}")
    if message.get("process") == this_process():
        return None
    topic, at = _get(message, "topic", str), message.get("at")
    if isinstance(at, int):  # not of an earlier release
        BUS_LAG.observe(max(0, min(_now_ms() - at, MOST_LAG)) / 1_000)
    events = [
        Event(topic, *(_get(each, name, kind) for name, kind in _fields_of(each).items()))
        for each in _get(message, "events", list)
    ]
    return topic, events or MISSED


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _to_fields(event: Event) -> dict[str, Any]:
    fields = {
        "event": event.type,
        "data": event.data,
        "epoch": event.epoch,
        "offset": event.offset,
    }
    return fields if event.meta is None else fields | {"meta": event.meta}


def _fields_of(each: object) -> dict[str, type]:
    has_meta = isinstance(each, Mapping) and "meta" in each
    return EVENT_FIELDS | {"meta": str} if has_meta else EVENT_FIELDS


def _get(message: object, name: str, kind: type) -> Any:
    if not isinstance(message, Mapping):
        raise ValueError(f"expected a dict, got {message!r:.60}")
    value = message.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"{name!r} should be {kind.__name__}, got {value!r:.60}")
    return value


def _encrypt(message: dict[str, Any]) -> bytes:
    return _cipher().encrypt(json.dumps(message).encode())


def _cipher() -> Cipher:
    return Cipher([django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS])
