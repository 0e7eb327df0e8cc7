"""An event's data and type: checked, and encoded once, before anything is stored."""

import json
import math
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, Final

from ..exceptions import DataTooLarge, InvalidData, InvalidEventType

DEFAULT_TYPE: Final = "message"
RESET: Final = "reset"  # the SSE event that says that history is gone; nobody may publish it
PRESENCE: Final = "presence"  # the SSE event that says who is there, for those who ask for it
MAX_TYPE_LENGTH: Final = 64
_TYPE = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{1,{MAX_TYPE_LENGTH}}}")
Convert = Callable[[Any], object]  # as `default` of json.JSONEncoder
dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # of our own values


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


def encode_data(data: object, max_bytes: int, convert: Convert | None = None) -> str:
    """Return the JSON text (RFC 8259) of `data`, without line breaks.

    What JSON has is taken: dicts with string keys, lists, tuples, strings, finite numbers, booleans
    and None. Of everything else `convert` returns such a value, or raises TypeError. Raises
    `InvalidData`, or `DataTooLarge` over `max_bytes` of UTF-8.
    """
    text, size = _encode(data, convert)
    if size > max_bytes:
        raise DataTooLarge(
            f"The data is {size} bytes of JSON, more than the {max_bytes} of MAX_EVENT_BYTES; "
            "publish a reference to it instead."
        )
    return text


def _encode(data: object, convert: Convert | None) -> tuple[str, int]:
    """Return the JSON text of `data`, and how many bytes of UTF-8 it has."""
    try:
        _check(data, convert)
        text = _encoder(convert)(data)
        return text, len(text) if text.isascii() else len(text.encode())
    except RecursionError:
        raise InvalidData("The data is nested too deeply to be JSON; flatten it.") from None
    except UnicodeEncodeError as error:
        raise InvalidData(_half_a_pair(error)) from None
    except ValueError as error:  # an integer with more digits than Python writes, or reads
        raise InvalidData(f"The data can't be written as JSON: {str(error).rstrip('.')}.") from None


def encode_meta(meta: object, max_bytes: int, convert: Convert | None = None) -> str:
    """Return the JSON text of an event's metadata, which is an object.

    Raises `InvalidData`, or `DataTooLarge` over `max_bytes` of UTF-8.
    """
    if not isinstance(meta, dict):
        raise InvalidData(f"The meta is {meta!r:.60}: give a dict.")
    try:
        text, size = _encode(meta, convert)
    except InvalidData as error:
        raise InvalidData(f"As meta: {error}") from None
    if size > max_bytes:
        raise DataTooLarge(
            f"The meta is {size} bytes of JSON, more than the {max_bytes} of MAX_META_BYTES; "
            "give a reference instead."
        )
    return text


def decode_data(text: str | bytes) -> Any:
    """Return the value of a JSON text (UTF-8, RFC 8259) that `encode_data` could write again.

    Raises `InvalidData` for everything else, numbers too large for a float and halves of surrogate
    pairs included: what came in has to be able to go out.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode()  # json.loads would guess UTF-16, and let surrogates pass
        value = _decode(text)
        if "\\ud" in text or "\\uD" in text:
            _encoder(None)(value).encode()
        return value
    except RecursionError:
        raise InvalidData("The JSON is nested too deeply; flatten it.") from None
    except UnicodeDecodeError:
        raise InvalidData("The JSON is not UTF-8.") from None
    except UnicodeEncodeError as error:
        raise InvalidData(_half_a_pair(error)) from None
    except ValueError as error:
        if "set_int_max_str_digits" in str(error):  # Python's way out, which no client has
            limit = sys.get_int_max_str_digits()
            raise InvalidData(f"The JSON has an integer of over {limit} digits.") from None
        raise InvalidData(f"This is not JSON: {error}.") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _parse_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text:.60} is out of range")
    return number


# One decoder for all: json.loads with arguments makes a new one for each text.
_decode = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_parse_float).decode


def _half_a_pair(error: UnicodeEncodeError) -> str:
    half = error.object[error.start]
    return f"The data holds half of a surrogate pair ({half!r}), which UTF-8 can't carry."


@cache
def _encoder(convert: Convert | None) -> Callable[[object], str]:
    # ensure_ascii off: text stays as short as UTF-8 makes it. Separators without spaces likewise.
    return json.JSONEncoder(
        ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=convert
    ).encode


_SCALARS: Final = frozenset({str, int, bool, type(None)})  # the encoder finds what is wrong in them


def _check(value: object, convert: Convert | None) -> None:
    """Raise `InvalidData` where json.dumps would change the value (integer keys) or refuse it."""
    if isinstance(value, dict):
        for key, item in value.items():  # as the encoder asks: a subclass may have its own
            if not isinstance(key, str):
                raise InvalidData(f"The data has the key {key!r:.60}: JSON keys are strings.")
            if type(item) not in _SCALARS:  # without a call for each of them
                _check(item, convert)
    elif isinstance(value, list | tuple):
        for item in value:
            if type(item) not in _SCALARS:
                _check(item, convert)
    else:
        _check_other(value, convert)


def _check_other(value: object, convert: Convert | None) -> None:
    """Raise `InvalidData` for what is no JSON value, or check what `convert` makes of it."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidData(f"The data holds {value}, which JSON can't express; use None.")
    elif value is not None and not isinstance(value, str | int):
        _check(_converted(value, convert), convert)


def _converted(value: object, convert: Convert | None) -> object:
    if convert is not None:
        with suppress(TypeError):
            return convert(value)
    kind = type(value)
    raise InvalidData(
        f"The data holds a {kind.__module__}.{kind.__qualname__}, which is not a JSON value: "
        "convert it first."
    )
