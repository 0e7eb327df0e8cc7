"""An event's data and type: checked, and encoded once, before anything is stored."""

import json
import math
import re
from typing import Any, Final

from ..exceptions import DataTooLarge, InvalidData, InvalidEventType

DEFAULT_TYPE: Final = "message"
RESET: Final = "reset"  # the SSE event that says that history is gone; nobody may publish it
MAX_TYPE_LENGTH: Final = 64
_TYPE = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{1,{MAX_TYPE_LENGTH}}}")
# ensure_ascii off: text stays as short as UTF-8 makes it. Separators without spaces likewise.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def validate_type(event_type: object) -> str:
    """Return the event's type, or raise `InvalidEventType` with the remedy."""
    if not isinstance(event_type, str) or _TYPE.fullmatch(event_type) is None:
        raise InvalidEventType(
            f"{event_type!r:.90} can't be an event's type: use 1 to {MAX_TYPE_LENGTH} characters "
            "without control characters."
        )
    if event_type == RESET:
        raise InvalidEventType(f"The event type {RESET!r} is reserved; choose another word.")
    return event_type


def encode_data(data: object, max_bytes: int) -> str:
    """The JSON text (RFC 8259) of `data`, without line breaks.

    Only what JSON has is taken: dicts with string keys, lists, tuples, strings, finite numbers,
    booleans and None. Raises `InvalidData`, or `DataTooLarge` over `max_bytes` of UTF-8.
    """
    try:
        _check(data, "data")
        text = _encode(data)
        size = len(text.encode())
    except RecursionError:
        raise InvalidData("The data is nested too deeply to be JSON; flatten it.") from None
    except UnicodeEncodeError as error:
        raise InvalidData(
            f"The data holds half of a surrogate pair ({error.object[error.start]!r}), "
            "which UTF-8 can't carry."
        ) from None
    if size > max_bytes:
        raise DataTooLarge(
            f"The data is {size} bytes of JSON, more than the {max_bytes} of MAX_EVENT_BYTES; "
            "publish a reference to it instead."
        )
    return text


def decode_data(text: str | bytes) -> Any:
    """The value of a JSON text; raise `InvalidData` for what RFC 8259 does not allow."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidData("The JSON is nested too deeply; flatten it.") from None
    except UnicodeDecodeError:
        raise InvalidData("The JSON is not UTF-8.") from None
    except ValueError as error:
        raise InvalidData(f"This is not JSON: {error}.") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _check(value: object, where: str) -> None:
    """Raise where json.dumps would bend the value (integer keys, NaN) or give up on it."""
    kind = type(value)
    if kind is str or kind is int or value is None or kind is bool:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidData(f"{where} has the key {key!r:.60}: JSON keys are strings.")
            _check(item, where)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, where)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidData(f"{where} holds {value}, which JSON can't express; use None.")
    elif not isinstance(value, str | int):
        raise InvalidData(
            f"{where} holds a {kind.__module__}.{kind.__qualname__}, which is not a JSON value: "
            "convert it first (str() for dates, decimals and UUIDs)."
        )
