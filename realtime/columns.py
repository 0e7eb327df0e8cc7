"""Columns fetched in the form in which JSON has them, without a Python object in between.

Most of what a row costs is to make a date, a decimal or a UUID of what the database sends, and text
of that again. Here the database is asked for text (or a number, where SQLite stores one), and the
text is put in its place. Only for plain fields, and only where every value of a page looks as
Django writes it; else the page is read the general way. Tests compare the two.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from django.conf import settings as django_settings
from django.db import connections, models
from django.db.models import ExpressionWrapper, F, FloatField, QuerySet, TextField
from django.db.models.functions import Cast

from .wire.ndjson import encode_column, encode_rows, join_columns

Write = Callable[[Sequence[Any]], Iterable[Any] | None]  # JSON of values that are not None, or None
Rows = list[Sequence[Any]]


class Columns:
    """`fields` of a queryset's rows as lines of NDJSON."""

    def __init__(self, queryset: QuerySet[Any], fields: Sequence[str]) -> None:
        self._fields = fields
        known = _KNOWN.get(connections[queryset.db].vendor, {})
        by_name: dict[str, Any] = {}
        if not queryset.query.annotations and not queryset.query.extra:
            by_name = {field.attname: field for field in queryset.model._meta.concrete_fields}
        self._expressions: list[Any] = []
        self._writers: list[Write | None] = []
        for name in fields:
            field = by_name.get(name)
            expression, write = known.get(type(field), _general)(field)
            self._expressions.append(name if expression is None else expression(F(name)))
            self._writers.append(write)

    def fetch(self, queryset: QuerySet[Any]) -> tuple[Rows, bytes]:
        """The rows and their lines; the last value of a row is its key."""
        rows: Rows = list(queryset.values_list(*self._expressions, "pk"))
        columns = []
        for values, write in zip(zip(*rows, strict=True), [*self._writers, None], strict=False):
            column = encode_column(values) if write is None else _around_nulls(write, values)
            if column is None:
                rows = list(queryset.values_list(*self._fields, "pk"))
                return rows, encode_rows(self._fields, rows)
            columns.append(column)
        return rows, join_columns(self._fields, columns)


def _around_nulls(write: Write, values: Sequence[Any]) -> Iterable[Any] | None:
    if None not in values:
        return write(values)
    encoded = write([value for value in values if value is not None])
    if encoded is None:
        return None
    some = iter(encoded)
    return ["null" if value is None else next(some) for value in values]


def _lengths(values: Sequence[Any]) -> set[int]:
    """The lengths of texts; none that a text has if there is anything else."""
    return set(map(len, values)) if set(map(type, values)) <= {str} else {-1}


# Writers


def _numbers(places: int) -> Write:
    def write(values: Sequence[Any]) -> list[str] | None:
        if not set(map(type, values)) <= {int, float}:
            return None
        text = f'"%.{places}f"'
        return [text % value for value in values]

    return write


def _texts(values: Sequence[Any]) -> list[str]:
    return [f'"{text}"' for text in values]


def _dates(values: Sequence[Any]) -> list[str] | None:
    return _texts(values) if _lengths(values) <= {10} else None


def _hexadecimals(values: Sequence[Any]) -> list[str] | None:
    if not _lengths(values) <= {32}:
        return None
    return [f'"{t[:8]}-{t[8:12]}-{t[12:16]}-{t[16:20]}-{t[20:]}"' for t in values]


# ECMA-262's format, as Django's encoder has it: milliseconds where there are microseconds.


def _datetimes_of_sqlite(values: Sequence[Any]) -> list[str] | None:
    """`2025-01-01 00:00:00`, perhaps with six digits more."""
    if not _lengths(values) <= {19, 26}:
        return None
    return [f'"{text[:10]}T{text[11:23]}Z"' for text in values]


def _datetimes_of_postgresql(values: Sequence[Any]) -> list[str] | None:
    """`2025-01-01 00:00:00+00`, perhaps with a fraction that does not end in 0."""
    lengths = _lengths(values)
    if not lengths <= {22, 24, 25, 26, 27, 28, 29}:
        return None
    if not all(text.endswith("+00") for text in values):
        return None
    if lengths == {22}:
        return [f'"{text[:10]}T{text[11:19]}Z"' for text in values]
    return [
        f'"{text[:10]}T{text[11:19]}{text[19:-3].ljust(4, "0")[:4] if len(text) > 22 else ""}Z"'
        for text in values
    ]


# What to ask for, and what to make of it

Known = tuple[Callable[[F], Any] | None, Write | None]
_GENERAL: Final[Known] = (None, None)


def _general(field: Any) -> Known:
    return _GENERAL


def _as_text(expression: F) -> Any:
    return Cast(expression, TextField())


def _as_number(expression: F) -> Any:
    return ExpressionWrapper(expression, output_field=FloatField())


def _decimal_of_sqlite(field: Any) -> Known:
    # Django takes 15 digits of the number, too. Beyond six places, str(Decimal) has exponents.
    if field.max_digits is None or field.max_digits > 15 or field.decimal_places > 6:
        return _GENERAL
    return _as_number, _numbers(field.decimal_places)


def _decimal_of_postgresql(field: Any) -> Known:
    if field.max_digits is None or field.decimal_places is None or field.decimal_places > 6:
        return _GENERAL
    return _as_text, _texts


def _in_utc(write: Write) -> Callable[[Any], Known]:
    return lambda field: (_as_text, write) if django_settings.USE_TZ else _GENERAL


_KNOWN: Final[dict[str, dict[Any, Callable[[Any], Known]]]] = {
    "sqlite": {
        models.DateField: lambda field: (_as_text, _dates),
        models.DateTimeField: _in_utc(_datetimes_of_sqlite),
        models.DecimalField: _decimal_of_sqlite,
        models.UUIDField: lambda field: (_as_text, _hexadecimals),
    },
    "postgresql": {
        models.DateField: lambda field: (_as_text, _dates),
        models.DateTimeField: _in_utc(_datetimes_of_postgresql),
        models.DecimalField: _decimal_of_postgresql,
        models.UUIDField: lambda field: (_as_text, _texts),
    },
}
