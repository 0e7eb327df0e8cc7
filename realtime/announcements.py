"""Events as messages of the channel layer."""

import secrets
from collections.abc import Mapping
from typing import Any, Final

from .events import Event

MESSAGE_TYPE: Final = "realtime.event"
# Events are handed to the hubs of the publishing process directly; what comes back is skipped.
PROCESS: Final = secrets.token_hex(8)


def to_message(event: Event) -> dict[str, Any]:
    """What goes through the layer: values that every layer's serializer knows."""
    return {
        "type": MESSAGE_TYPE,
        "process": PROCESS,
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
    if message.get("process") == PROCESS:
        return None
    try:
        return Event(
            message["topic"], message["event"], message["data"], message["epoch"], message["offset"]
        )
    except KeyError as error:
        raise ValueError(f"{error} is missing") from None
