"""Events as messages of the channel layer."""

import os
import secrets
from collections.abc import Mapping
from typing import Any, Final

from .events import Event

MESSAGE_TYPE: Final = "realtime.event"
_FIELDS: Final = {"topic": str, "event": str, "data": str, "epoch": str, "offset": int}
_HOST: Final = secrets.token_hex(8)


def to_message(event: Event) -> dict[str, Any]:
    """What goes through the layer: values that every layer's serializer knows."""
    return {
        "type": MESSAGE_TYPE,
        "process": _process(),
        "topic": event.topic,
        "event": event.type,
        "data": event.data,
        "epoch": event.epoch,
        "offset": event.offset,
    }


def from_message(message: Mapping[str, Any]) -> Event | None:
    """The event of a message, None if this process sent it; ValueError if it is none of ours."""
    if message.get("type") != MESSAGE_TYPE:
        raise ValueError(f"expected type {MESSAGE_TYPE!r}, got {message.get('type')!r}")
    if message.get("process") == _process():
        return None
    # Whoever reaches the layer can put anything there; a hub has to survive it.
    for name, kind in _FIELDS.items():
        if not isinstance(message.get(name), kind):
            raise ValueError(f"{name!r} should be {kind.__name__}, got {message.get(name)!r:.60}")
    return Event(
        message["topic"], message["event"], message["data"], message["epoch"], message["offset"]
    )


def _process() -> str:
    """Who announced: its own hubs get an event directly, and skip what comes back to them.

    With the process id, since servers that fork after the import share everything else.
    """
    return f"{_HOST}.{os.getpid()}"
