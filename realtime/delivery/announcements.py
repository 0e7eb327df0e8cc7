"""What processes say to each other through the channel layer: events, and that they listen."""

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from ..events.event import Event

MESSAGE_TYPE: Final = "realtime.event"
HELLO_TYPE: Final = "realtime.hello"
_FIELDS: Final = {"event": str, "data": str, "epoch": str, "offset": int}
_HOST: Final = secrets.token_hex(8)


def to_message(events: Sequence[Event]) -> dict[str, Any]:
    """What goes through the layer, of events of one topic: values that every layer's serializer
    knows."""
    return {
        "type": MESSAGE_TYPE,
        "process": this_process(),
        "topic": events[0].topic,
        "events": [
            {"event": e.type, "data": e.data, "epoch": e.epoch, "offset": e.offset} for e in events
        ],
    }


def from_message(message: Mapping[str, Any]) -> list[Event]:
    """A message's events, of one topic; none if this process sent it. ValueError if it is none of
    ours."""
    if message.get("type") != MESSAGE_TYPE:
        raise ValueError(f"expected type {MESSAGE_TYPE!r}, got {message.get('type')!r}")
    if message.get("process") == this_process():
        return []
    # Whoever reaches the layer can put anything there; a hub has to survive it.
    topic = _get(message, "topic", str)
    return [
        Event(topic, *(_get(each, name, kind) for name, kind in _FIELDS.items()))
        for each in _get(message, "events", list)
    ]


class Hello(NamedTuple):
    """That a process listens."""

    process: str
    every: float  # seconds until it says so again
    asks: bool = False  # who else does
    to: Sequence[str] = ()  # the processes it answers


def to_hello(every: float, *, asks: bool = False, to: Sequence[str] = ()) -> dict[str, Any]:
    """What goes through the layer, of this process's hello."""
    return {
        "type": HELLO_TYPE,
        "process": this_process(),
        "every": float(every),
        "asks": asks,
        "to": list(to),
    }


def from_hello(message: Mapping[str, Any]) -> Hello | None:
    """A message's hello; None if this process sent it. ValueError if it is none of ours."""
    hello = Hello(
        _get(message, "process", str),
        _get(message, "every", float),
        _get(message, "asks", bool),
        _get(message, "to", list),
    )
    return None if hello.process == this_process() else hello


def _get(message: object, name: str, kind: type) -> Any:
    if not isinstance(message, Mapping):
        raise ValueError(f"an event should be a dict, got {message!r:.60}")
    value = message.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"{name!r} should be {kind.__name__}, got {value!r:.60}")
    return value


def this_process() -> str:
    """Who announced: its own hubs get an event directly, and skip what comes back to them.

    With the process id, since servers that fork after the import share everything else.
    """
    return f"{_HOST}.{os.getpid()}"
