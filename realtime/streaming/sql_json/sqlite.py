"""What JSON makes of the values, in the SQL of SQLite, where a % is doubled.

`name` is used several times: it is a plain column, without parameters.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from django.db import models

from .column import INTEGERS, TEXTS, Column, Form, Forms

# SQLite aggregates in the order of the rows that it is given; `ORDER BY` came with 3.44. As a
# BLOB, the text is not decoded before it has been looked at.
TOGETHER: Final = {
    ",": "CAST(group_concat({}) AS BLOB)",
    "\n": "CAST(group_concat({}, '\n') AS BLOB)",
}
_DECIMALS: Final = bytes.maketrans(b"123456789", b"0" * 9)
_HEXADECIMALS: Final = bytes.maketrans(b"123456789abcdef", b"0" * 15)
_DATES: Final = Forms(_DECIMALS, (Form(b"0000-00-00", b'"0000-00-00"', ((0, 1, 10),)),))
_DATETIMES: Final = Forms(
    _DECIMALS,
    (
        Form(
            *(b"0000-00-00 00:00:00.000000", b'"0000-00-00T00:00:00.000Z"'),
            moves=((0, 1, 10), (11, 12, 12)),
        ),
        Form(b"0000-00-00 00:00:00", b'"0000-00-00T00:00:00Z"', ((0, 1, 10), (11, 12, 8))),
    ),
    never=b".000000,",  # JSON has none of them then
)
_UUIDS: Final = Forms(
    _HEXADECIMALS,
    (
        Form(
            *(b"0" * 32, b'"00000000-0000-0000-0000-000000000000"'),
            moves=((0, 1, 8), (8, 10, 4), (12, 15, 4), (16, 20, 4), (20, 25, 12)),
        ),
    ),
)


def rowid(field: Any, name: str) -> Column:
    return Column(name)


def integer(field: Any, name: str) -> Column:
    # Any column but a rowid may hold what was put there.
    return Column(f"CASE WHEN typeof({name}) = 'integer' THEN {name} END")


def _boolean(field: Any, name: str) -> Column:
    return Column(f"CASE {name} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END")


def _text(field: Any, name: str) -> Column:
    return Column(f"json_quote({name})", separator="\n")


def _date(field: Any, name: str) -> Column:
    return Column(name, _DATES)


def _datetime(field: Any, name: str) -> Column:
    """`2025-01-01 00:00:00`, perhaps with six digits more, of which JSON has three."""
    return Column(name, _DATETIMES)


def _decimal(field: Any, name: str) -> Column:
    # The number is near one with so many places, so that both ways of rounding agree.
    places = field.decimal_places
    most, scaled = f"1e{15 - places}", f"{name} * 1e{places}"
    return Column(
        f"CASE WHEN {name} BETWEEN -{most} AND {most} AND "
        f"abs({scaled} - CAST({scaled} AS INTEGER)) NOT BETWEEN 0.25 AND 0.75 "
        f"THEN printf('\"%%.{places}f\"', {name}) END"
    )


def _uuid(field: Any, name: str) -> Column:
    """32 hexadecimal digits."""
    return Column(name, _UUIDS)


WRITERS: Final[Mapping[Any, Callable[[Any, str], Column]]] = {
    **dict.fromkeys(INTEGERS, integer),
    **dict.fromkeys(TEXTS, _text),
    models.BooleanField: _boolean,
    models.DateField: _date,
    models.DateTimeField: _datetime,
    models.DecimalField: _decimal,
    models.UUIDField: _uuid,
}


def is_able(sqlite: Any) -> bool:
    """Whether this SQLite has JSON's functions, and the database is one in UTF-8."""
    with sqlite.cursor() as cursor:
        cursor.execute("PRAGMA encoding")
        in_utf8 = cursor.fetchone() == ("UTF-8",)
    return in_utf8 and bool(sqlite.features.supports_json_field)
