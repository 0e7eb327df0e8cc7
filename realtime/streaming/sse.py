"""Server-sent events as bytes (WHATWG HTML, section 9.2, "Server-sent events")."""

from typing import Final

from ..events.event import Event
from ..events.payload import DEFAULT_TYPE, RESET, encode_data
from ..events.position import Position

KEEPALIVE: Final = b": keepalive\n\n"
_FORBIDDEN_IN_FIELD: Final = ("\r", "\n", "\0")


def encode_sse(
    data: str | None = None,
    *,
    event: str | None = None,
    id: str | None = None,
    retry: int | None = None,
) -> bytes:
    """One event, blank line included; `retry` is in milliseconds.

    Each line of `data` gets its own `data:` field; CR, LF and CRLF all end a line, and arrive as
    LF. `data=""` is dispatched as an event with empty data; `data=None` writes no data field and
    so dispatches nothing (for `retry` alone). Raises ValueError for CR, LF or NUL in `event` or
    `id`: the standard gives no way to write them.
    """
    fields = []
    if event is not None:
        fields.append(f"event: {_field('event', event)}\n")
    if id is not None:
        fields.append(f"id: {_field('id', id)}\n")
    if retry is not None:
        if retry < 0:
            raise ValueError(f"retry is {retry} ms; it can't be negative.")
        fields.append(f"retry: {retry}\n")
    if data is not None:
        # Not splitlines(): that also breaks at form feeds and U+2028, which are plain data here.
        for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
            fields.append(f"data: {line}\n")
    return "".join([*fields, "\n"]).encode()


def encode_comment(text: str) -> bytes:
    """A comment, which clients ignore; it keeps proxies from closing an idle stream."""
    return "".join(f": {line}\n" for line in text.splitlines() or [""]).encode() + b"\n"


def encode_event(event: Event) -> bytes:
    """An event of a stream over one topic. Its data is JSON text and so has no line break."""
    name = "" if event.type == DEFAULT_TYPE else f"event: {event.type}\n"
    event_id = f"id: {event.epoch}-{event.offset}\n" if event.offset else ""
    return f"{name}{event_id}data: {event.data}\n\n".encode()


def encode_event_among(event: Event, stream_id: str | None) -> bytes:
    """An event of a stream over several topics; `stream_id` covers all of them."""
    name = "" if event.type == DEFAULT_TYPE else f"event: {event.type}\n"
    event_id = f"id: {stream_id}\n" if stream_id is not None else ""
    return f'{name}{event_id}data: {{"topic":"{event.topic}","data":{event.data}}}\n\n'.encode()


def encode_reset(topic: str, position: Position, stream_id: str) -> bytes:
    """`event: reset`: history is gone; what the client has is stale, its new position is the id."""
    data = encode_data({"topic": topic, "id": str(position)}, max_bytes=1_000)
    return encode_sse(data, event=RESET, id=stream_id)


def _field(name: str, value: str) -> str:
    if any(character in value for character in _FORBIDDEN_IN_FIELD):
        raise ValueError(f"{name} is {value!r}: CR, LF and NUL can't be written in an SSE field.")
    return value
