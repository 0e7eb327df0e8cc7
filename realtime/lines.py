"""Lines of NDJSON that the database itself writes, a page of them as one text.

Most of what a row costs is to make Python objects of what the database has, and text of those
again. Here the database is asked for the text: one query is one page, and nothing in this process
is per row. Only for fields whose JSON it can write as Django does, only in the order of an integer
key, and only where every value of the page looks as Django stores it; else Python reads the page.
Tests compare the two.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, Self, TypeAlias

from django.conf import settings as django_settings
from django.core.exceptions import EmptyResultSet
from django.db import connections, models
from django.db.models import Func, QuerySet, TextField

from .rows import Page
from .wire.ndjson import encode_value

MAX_ARGUMENTS: Final = 90  # databases limit those of one function call, PostgreSQL to 100


class Value(NamedTuple):
    """How one field is written: directives of the format, what they stand for, and an SQL condition
    on the values that may be written so."""

    directives: str
    arguments: tuple[str, ...]
    condition: str = ""


Write: TypeAlias = Callable[[Any, str], Value]  # of a field and its column in SQL


class Lines:
    """The lines of a queryset's rows, objects with these fields, in the order of the key."""

    def __init__(self, queryset: QuerySet[Any], names: Sequence[str], values: "_Values") -> None:
        self._rows = queryset.order_by("pk")
        self._line = _Line(names, values)
        # By whether it is the first page's: compiled once, which costs as much as hundreds of rows.
        self._statements: dict[bool, tuple[str, Sequence[Any]] | None] = {}

    @classmethod
    def of(cls, queryset: QuerySet[Any], names: Sequence[str]) -> Self | None:
        """None where the database can't write them."""
        query, meta = queryset.query, queryset.model._meta
        if query.annotations or query.extra or query.select_for_update:
            return None
        by_name = {name: f for f in meta.concrete_fields for name in (f.attname, f.name)}
        by_name["pk"] = meta.pk
        if type(meta.pk) not in _INTEGERS or not by_name.keys() >= set(names):
            return None
        values = _values(connections[queryset.db], [by_name[name] for name in names])
        return None if values is None else cls(queryset, names, values)

    def fetch(self, last: Any, count: int) -> Page | None:
        """The `count` rows after the key `last` (None: the first ones); None where Python has to
        read them. Called in a thread."""
        connection, first = connections[self._rows.db], last is None
        if first not in self._statements:
            self._statements[first] = self._statement(connection, first)
        statement = self._statements[first]
        if statement is None:
            return None
        sql, parameters = statement
        with connection.cursor() as cursor:
            cursor.execute(sql, [last if each is _LAST else each for each in parameters] + [count])
            found, rows, key = cursor.fetchone()
        lines: bytes = found.encode() if isinstance(found, str) else found or b""
        return Page(lines, rows, key) if lines.count(b"\n") == rows else None

    def _statement(self, connection: Any, first: bool) -> tuple[str, Sequence[Any]] | None:
        rows = self._rows if first else self._rows.filter(pk__gt=_Last())
        query = rows.values_list(self._line, "pk").query
        try:
            sql, parameters = query.get_compiler(connection=connection).as_sql()
        except EmptyResultSet:
            return None
        if connection.vendor == "sqlite" and not _is_able(connection):
            return None
        return _PAGES[connection.vendor].format(sql), parameters


_Values: TypeAlias = Sequence[Callable[[str], Value]]  # of a column in SQL


def _values(connection: Any, fields: Sequence[Any]) -> _Values | None:
    """How each field is written; None where one can't be, or all together are too long."""
    writers, values = _WRITERS.get(connection.vendor, {}), []
    in_utc = django_settings.USE_TZ and connection.timezone_name == "UTC"
    for field in fields:
        target = field
        while target.is_relation:
            target = target.target_field
        write = writers.get(type(target))
        if write is None or (type(target) is models.DateTimeField and not in_utc):
            return None
        if type(target) is models.DecimalField and not _is_short(connection.vendor, target):
            return None
        nulls = _or_null if field.null else _as_it_is
        values.append(partial(nulls, _FORMAT[connection.vendor], partial(write, target)))
    arguments = sum(len(value("").arguments) for value in values)
    return values if arguments <= MAX_ARGUMENTS else None


def _is_short(vendor: str, field: Any) -> bool:
    """Whether a decimal is written without an exponent, and SQLite's number has all its digits."""
    digits, places = field.max_digits, field.decimal_places
    return digits is not None and places <= 6 and (vendor != "sqlite" or digits <= 15)


def _as_it_is(function: str, write: Callable[[str], Value], column: str) -> Value:
    return write(column)


def _or_null(function: str, write: Callable[[str], Value], column: str) -> Value:
    value = write(column)
    text = f"{function}('{value.directives.replace('%', '%%')}', {', '.join(value.arguments)})"
    return Value(
        "%s",
        (f"CASE WHEN {column} IS NULL THEN 'null' ELSE {text} END",),
        value.condition and f"({column} IS NULL OR {value.condition})",
    )


def _is_able(sqlite: Any) -> bool:
    """Whether this SQLite has JSON's functions, and the database is one in UTF-8."""
    with sqlite.cursor() as cursor:
        cursor.execute("PRAGMA encoding")
        in_utf8 = cursor.fetchone() == ("UTF-8",)
    return in_utf8 and bool(sqlite.features.supports_json_field)


class _Line(Func):
    """One row as a line; NULL where a condition of one of the values is not met."""

    output_field = TextField()

    def __init__(self, names: Sequence[str], values: _Values) -> None:
        super().__init__(*names)
        self._names = names
        self._values = values

    def as_sql(  # type: ignore[override]
        self, compiler: Any, connection: Any, **_: Any
    ) -> tuple[str, list[Any]]:
        columns = [compiler.compile(source)[0] for source in self.get_source_expressions()]
        values = [value(column) for value, column in zip(self._values, columns, strict=True)]
        pairs = [
            f"{encode_value(name)}:".replace("%", "%%") + value.directives
            for name, value in zip(self._names, values, strict=True)
        ]
        arguments = ", ".join(argument for value in values for argument in value.arguments)
        line = f"{_FORMAT[connection.vendor]}(%s, {arguments})"
        if conditions := [value.condition for value in values if value.condition]:
            line = f"CASE WHEN {' AND '.join(conditions)} THEN {line} END"
        return line, [f"{{{','.join(pairs)}}}\n"]


class _Last(Func):
    """Stands for the last key of the page before."""

    output_field = models.BigIntegerField()

    def as_sql(  # type: ignore[override]
        self, compiler: Any, connection: Any, **_: Any
    ) -> tuple[str, list[Any]]:
        return "%s", [_LAST]


_LAST: Final = object()

# What JSON makes of the values, in the SQL of each database. `column` is used several times: it is
# a plain column, without parameters.

_FORMAT: Final = {"sqlite": "printf", "postgresql": "format"}
_PAGES: Final = {
    # SQLite aggregates in the order of the rows that it is given; `ORDER BY` came with 3.44. As a
    # BLOB, the text is not decoded here to be encoded again.
    "sqlite": "WITH page(line, pk) AS ({} LIMIT %s) "
    "SELECT CAST(group_concat(line, '') AS BLOB), count(*), max(pk) FROM page",
    "postgresql": "WITH page(line, pk) AS ({} LIMIT %s) "
    "SELECT string_agg(line, '' ORDER BY pk), count(*), max(pk) FROM page",
}
_INTEGERS: Final = (
    *(models.AutoField, models.BigAutoField, models.SmallAutoField),
    *(models.IntegerField, models.BigIntegerField, models.SmallIntegerField),
    *(models.PositiveIntegerField, models.PositiveBigIntegerField),
    models.PositiveSmallIntegerField,
)
_TEXTS: Final = (
    *(models.CharField, models.TextField, models.SlugField, models.EmailField, models.URLField),
)


def _sqlite_integer(field: Any, column: str) -> Value:
    # A rowid is nothing else; any other column may hold what was put there.
    condition = "" if isinstance(field, models.AutoField) else f"typeof({column}) = 'integer'"
    return Value("%d", (column,), condition)


def _sqlite_boolean(field: Any, column: str) -> Value:
    text = f"CASE {column} WHEN 1 THEN 'true' ELSE 'false' END"
    return Value("%s", (text,), f"{column} IN (0, 1)")


def _sqlite_text(field: Any, column: str) -> Value:
    return Value("%s", (f"json_quote({column})",))


def _sqlite_date(field: Any, column: str) -> Value:
    return Value('"%s"', (column,), f"length({column}) = 10")


def _sqlite_datetime(field: Any, column: str) -> Value:
    """`2025-01-01 00:00:00`, perhaps with six digits more, of which JSON has three."""
    arguments = (column, f"substr({column}, 12)")
    return Value('"%.10sT%.12sZ"', arguments, f"length({column}) IN (19, 26)")


def _sqlite_decimal(field: Any, column: str) -> Value:
    # The number is near one with so many places, so that both ways of rounding agree.
    places = field.decimal_places
    most, scaled = f"1e{15 - places}", f"{column} * 1e{places}"
    condition = (
        f"{column} BETWEEN -{most} AND {most} AND "
        f"abs({scaled} - CAST({scaled} AS INTEGER)) NOT BETWEEN 0.25 AND 0.75"
    )
    return Value(f'"%.{places}f"', (column,), condition)


def _sqlite_uuid(field: Any, column: str) -> Value:
    """32 hexadecimal digits."""
    parts = (column, *(f"substr({column}, {start})" for start in (9, 13, 17, 21)))
    return Value('"%.8s-%.4s-%.4s-%.4s-%s"', parts, f"length({column}) = 32")


def _postgresql_plain(field: Any, column: str) -> Value:
    return Value("%s", (column,))


def _postgresql_boolean(field: Any, column: str) -> Value:
    return Value("%s", (f"CASE WHEN {column} THEN 'true' ELSE 'false' END",))


def _postgresql_text(field: Any, column: str) -> Value:
    return Value("%s", (f"to_json({column}::text)",))


def _postgresql_date(field: Any, column: str) -> Value:
    years = f"{column} BETWEEN '0001-01-01' AND '9999-12-31'"
    return Value('"%s"', (f"to_char({column}, 'YYYY-MM-DD')",), years)


def _postgresql_datetime(field: Any, column: str) -> Value:
    """With milliseconds where there are microseconds."""
    utc = f"({column} AT TIME ZONE 'UTC')"
    whole = f"to_char({utc}, 'YYYY-MM-DD\"T\"HH24:MI:SS')"
    part = f"CASE WHEN date_trunc('second', {utc}) = {utc} THEN '' ELSE to_char({utc}, '.MS') END"
    years = f"{utc} >= '0001-01-01' AND {utc} < '10000-01-01'"
    return Value('"%s%sZ"', (whole, part), years)


def _postgresql_in_quotes(field: Any, column: str) -> Value:
    return Value('"%s"', (column,))


_WRITERS: Final[Mapping[str, Mapping[Any, Write]]] = {
    "sqlite": {
        **dict.fromkeys(_INTEGERS, _sqlite_integer),
        **dict.fromkeys(_TEXTS, _sqlite_text),
        models.BooleanField: _sqlite_boolean,
        models.DateField: _sqlite_date,
        models.DateTimeField: _sqlite_datetime,
        models.DecimalField: _sqlite_decimal,
        models.UUIDField: _sqlite_uuid,
    },
    "postgresql": {
        **dict.fromkeys(_INTEGERS, _postgresql_plain),
        **dict.fromkeys(_TEXTS, _postgresql_text),
        models.BooleanField: _postgresql_boolean,
        models.DateField: _postgresql_date,
        models.DateTimeField: _postgresql_datetime,
        models.DecimalField: _postgresql_in_quotes,
        models.UUIDField: _postgresql_in_quotes,
    },
}
