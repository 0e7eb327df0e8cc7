"""What is said over a topic WebSocket: JSON text frames, and their bytes on the wire."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Literal, TypeAlias

from ..events.event import Event
from ..events.payload import decode_data, dumps
from ..events.position import Position
from ..exceptions import DataTooLarge, InvalidData, NotIdentified
from ..limits.connection_limits import PUBLISH_BYTES
from ..limits.publishing import max_body_bytes

Accepts: TypeAlias = Literal["json", "text", "bytes"]

PING: Final = '{"type":"ping"}'

SHORT: Final = 1_024  # characters
REF_LENGTH: Final = 1_024  # of a `ref` as JSON
#: Beside the data of a publication: the names of its topic and type, its key and its `ref`.
AROUND_DATA: Final = 16_384
_STRING: Final = r'"[^"\\\x00-\x1f]*+"'
_REF: Final = re.compile(
    rf'\s*+\{{(?:\s*+{_STRING}\s*+:\s*+{_STRING}\s*+,)*?\s*+"ref"\s*+:\s*+'
    rf"({_STRING}|-?[1-9][0-9]{{0,17}}+|0)\s*+[,}}]"
)

CLOSE_BAD_MESSAGE: Final = 4400
CLOSE_NOT_IDENTIFIED: Final = 4401
CLOSE_NOT_ALLOWED: Final = 4403
CLOSE_NO_AUTH_IN_TIME: Final = 4408
CLOSE_TOO_MANY: Final = 4429
CLOSE_ERROR: Final = 1011


def content_of(message: Mapping[str, Any], accepts: Accepts) -> Any:
    """Return what an ASGI `websocket.receive` has; raises `InvalidData`."""
    text, data = message.get("text"), message.get("bytes")
    if accepts == "text":
        if text is None:
            raise InvalidData("Send text frames here; this was binary.")
        return text
    if accepts == "bytes":
        if data is None:
            raise InvalidData("Send binary frames here; this was text.")
        return data
    return decode_data(text if text is not None else data or b"")


def request_of(message: Mapping[str, Any], accepts: Accepts) -> Any:
    """Return what `content_of` does, of a message to topics.

    Raises `DataTooLarge`: before it is parsed for a message that is longer than any event can need,
    and afterwards for a long one that is no publication, or has a long `ref`.
    """
    size = size_of(message)
    is_long = size > PUBLISH_BYTES
    if is_long and size > (limit := max_body_bytes() + AROUND_DATA):
        raise DataTooLarge(f"The message is over {limit} characters; publish a reference instead.")
    content = content_of(message, accepts)
    if is_long and (not isinstance(content, dict) or content.get("type") != "publish"):
        raise DataTooLarge(f"Only a 'publish' message may have over {PUBLISH_BYTES} characters.")
    if size > REF_LENGTH and not _is_short(ref_of(content)):
        raise DataTooLarge(f"A 'ref' may have {REF_LENGTH} characters of JSON.")
    return content


def token_of(message: Mapping[str, Any]) -> str:
    """Return the token of a first message; raises `NotIdentified` where it has none."""
    with suppress(InvalidData):
        # A longer one is not parsed: nobody knows yet who sends it.
        content = content_of(message, "json") if size_of(message) <= PUBLISH_BYTES else None
        if isinstance(content, dict) and isinstance(content.get("token"), str):
            return str(content["token"])
    raise NotIdentified('The first message has to be {"token": "..."}.')


def event_text(event: Event) -> str:
    """Return the JSON text of an event's frame. An ephemeral event has no id."""
    event_id = f'"id":"{event.id}",' if event.offset else ""
    return (
        f'{{"type":"event","topic":"{event.topic}",{event_id}'
        f'"event":{dumps(event.type)},"data":{event.data}}}'
    )


def event_text_with_meta(event: Event) -> str:
    """Return the text of an event's frame with its `meta`, if it has any."""
    meta = "" if event.meta is None else f',"meta":{event.meta}'
    return f"{event_text(event)[:-1]}{meta}}}"


def encode_event(event: Event) -> bytes:
    """Return the body of an event's frame, in UTF-8."""
    return event_text(event).encode()


def encode_event_with_meta(event: Event) -> bytes:
    """Return the body of an event's frame with its `meta`, in UTF-8."""
    return event_text_with_meta(event).encode()


def reset_text(topic: str, position: Position) -> str:
    """History is gone: what the client has of this topic is stale, its new position is the id."""
    return dumps(
        {
            "type": "reset",
            "topic": topic,
            "id": str(position),
            "detail": "History no longer reaches back to your id; reload, then go on from here.",
        }
    )


def reply(kind: str, ref: Any = None, **fields: Any) -> str:
    """Return a frame that answers a request, with the request's `ref` if it had one."""
    message = {"type": kind, **fields}
    if ref is not None:
        message["ref"] = ref
    return dumps(message)


def published_text(event_id: str | None, ref: Any = None) -> str:
    """Return the frame that acknowledges a publication; of an ephemeral one without an id."""
    if ref is None and event_id is not None:
        return f'{{"type":"published","id":"{event_id}"}}'  # an id has no character to escape
    return reply("published", ref, id=event_id)


def type_of(content: Any) -> str:
    """Return the type of a request; raises `InvalidData` for what is no request."""
    if not isinstance(content, dict) or not isinstance(content.get("type"), str):
        raise InvalidData('A message is an object with a "type".')
    return str(content["type"])


def ref_of(content: Any) -> Any:
    """Return the `ref` of a request, which its answer carries."""
    return content.get("ref") if isinstance(content, dict) else None


def _is_short(ref: Any) -> bool:
    try:
        return len(dumps(ref)) <= REF_LENGTH
    except RecursionError:
        return False


def size_of(message: Mapping[str, Any]) -> int:
    """Return how long a message is, in characters or bytes."""
    return len(message.get("text") or message.get("bytes") or "")


def ref_in(message: Mapping[str, Any]) -> Any:
    """Return the `ref` of a message that was refused unparsed.

    A long one has to begin with it: only members whose values are strings may stand before.
    """
    text, data = message.get("text"), message.get("bytes") or b""
    if size_of(message) <= SHORT:  # to parse as much costs less than the answer
        with suppress(InvalidData):
            return ref_of(content_of(message, "json"))
        return None
    beginning = data[:SHORT].decode(errors="replace") if text is None else text
    match = _REF.match(beginning, 0, SHORT)
    return None if match is None else json.loads(match[1])


def error_text(code: str, detail: str, ref: Any = None, **more: object) -> str:
    """Return an error frame: `code` for programs, `detail` says what to do."""
    return reply("error", ref, code=code, detail=detail, **more)
