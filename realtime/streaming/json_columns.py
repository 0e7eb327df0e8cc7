"""NDJSON (application/x-ndjson): one JSON value a line.

Whole pages at once, because a call per row is most of what a row costs.
"""

import datetime
import decimal
import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from django.core.serializers.json import DjangoJSONEncoder

from ..events.event import Event
from ..events.payload import dumps

Encoder = Callable[[Any], str]
ColumnEncoder = Callable[[Sequence[Any]], Iterable[str]]
# Django's forms of dates, decimals, UUIDs and lazy strings. NaN is refused: it is not JSON. Without
# line breaks inside: JSON's strings have them escaped.
encode_value: Final[Encoder] = DjangoJSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode


def to_utf8(text: str) -> bytes:
    """Return the bytes of a JSON text; half of a surrogate pair, which has none, is escaped."""
    return text.encode("utf-8", "backslashreplace")  # only strings can hold one


def encode_lines(values: Iterable[Any]) -> bytes:
    """Return a line for each value."""
    return to_utf8("".join([encode_value(value) + "\n" for value in values]))


def encode_rows(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """Return a line for each row, an object with these names.

    What `encode_lines` makes of the dicts. Values behind the last name are left out.

    By columns: all values of a column have one type, most of the time, and then one encoder goes
    over them without asking again.
    """
    columns = [
        encode_column(values) for _, values in zip(names, zip(*rows, strict=True), strict=False)
    ]
    return join_columns(names, columns, len(rows))


def join_columns(names: Sequence[str], columns: Sequence[Sequence[bytes]], count: int) -> bytes:
    """Return a line for each of `count` rows, an object with these names.

    From the JSON of the values.

    All is put into one list, a column at a time, and joined once: nothing here is per row.
    """
    if not count or not names:
        return b"{}\n" * count
    step = 2 * len(names)
    parts = [b""] * (step * count + 1)
    for number, (name, column) in enumerate(zip(names, columns, strict=True)):
        pair = to_utf8(encode_value(name)) + b":"
        parts[2 * number : -1 : step] = [b"," + pair if number else b"}\n{" + pair] * count
        parts[2 * number + 1 :: step] = column
    parts[0] = parts[0].removeprefix(b"}\n")
    parts[-1] = b"}\n"
    return b"".join(parts)


def encode_event_line(event: Event) -> str:
    """Return a kept event: `id`, `event` and `data`, as the frame of a WebSocket has them."""
    return f'{{"id":"{event.id}","event":{dumps(event.type)},"data":{event.data}}}\n'


def encode_event_line_with_meta(event: Event) -> str:
    """Return a kept event as `encode_event_line` does, and its `meta` if it has any."""
    meta = "" if event.meta is None else f',"meta":{event.meta}'
    return f"{encode_event_line(event)[:-2]}{meta}}}\n"


def encode_column(values: Sequence[Any]) -> list[bytes]:
    """Return the JSON of each value."""
    return to_utf8("\n".join(_encode(values))).split(b"\n")  # JSON has none inside


def _encode(values: Sequence[Any]) -> Iterable[str]:
    kinds = set(map(type, values))
    nulls = len(kinds) == 2 and type(None) in kinds
    if nulls:
        kinds.discard(type(None))
    write: ColumnEncoder = _encode_each
    if len(kinds) == 1:
        write = _ENCODERS.get(kinds.pop(), _encode_each)
    if not nulls:
        return write(values)
    some = iter(write([value for value in values if value is not None]))
    return ["null" if value is None else next(some) for value in values]


def _encode_each(values: Sequence[Any]) -> Iterable[str]:
    return map(encode_value, values)


def _encode_integers(values: Sequence[int]) -> Iterable[str]:
    return map(str, values)


def _encode_booleans(values: Sequence[bool]) -> Iterable[str]:
    return ["true" if value else "false" for value in values]


def _encode_nulls(values: Sequence[None]) -> Iterable[str]:
    return ["null"] * len(values)


def _encode_text(values: Sequence[str]) -> Iterable[str]:
    return map(json.encoder.encode_basestring, values)


def _in_quotes(values: Sequence[Any]) -> Iterable[str]:
    return map('"%s"'.__mod__, zip(map(str, values)))


def _encode_datetimes(values: Sequence[datetime.datetime]) -> list[str]:
    # ECMA-262's format, as Django's encoder has it: milliseconds if any, and Z for UTC.
    isoformat = datetime.datetime.isoformat
    texts = [
        isoformat(value, "T", "milliseconds" if value.microsecond else "seconds")
        for value in values
    ]
    return [f'"{text[:-6]}Z"' if text.endswith("+00:00") else f'"{text}"' for text in texts]


_ENCODERS: Final[dict[Any, ColumnEncoder]] = {
    int: _encode_integers,
    str: _encode_text,
    bool: _encode_booleans,
    type(None): _encode_nulls,
    datetime.datetime: _encode_datetimes,
    datetime.date: _in_quotes,
    decimal.Decimal: _in_quotes,
    uuid.UUID: _in_quotes,
}
