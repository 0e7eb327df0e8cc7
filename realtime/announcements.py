"""Events as messages of the channel layer."""

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .events import Event

MESSAGE_TYPE: Final = "realtime.event"
_FIELDS: Final = {"event": str, "data": str, "epoch": str, "offset": int}
_HOST: Final = secrets.token_hex(8)


def to_message(events: Sequence[Event]) -> dict[str, Any]:
    """What goes through the layer, of events of one topic: values that every layer's serializer
    knows."""
    return {
        "type": MESSAGE_TYPE,
        "process": _process(),
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
    if message.get("process") == _process():
        return []
    # Whoever reaches the layer can put anything there; a hub has to survive it.
    topic = _get(message, "topic", str)
    return [
        Event(topic, *(_get(each, name, kind) for name, kind in _FIELDS.items()))
        for each in _get(message, "events", list)
    ]


def _get(message: object, name: str, kind: type) -> Any:
    if not isinstance(message, Mapping):
        raise ValueError(f"an event should be a dict, got {message!r:.60}")
    value = message.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"{name!r} should be {kind.__name__}, got {value!r:.60}")
    return value


def _process() -> str:
    """Who announced: its own hubs get an event directly, and skip what comes back to them.

    With the process id, since servers that fork after the import share everything else.
    """
    return f"{_HOST}.{os.getpid()}"
