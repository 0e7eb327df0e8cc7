"""Lines of NDJSON that the database itself writes, a page of them as one text.

Most of what a row costs is to make Python objects of what the database has, and text of those
again. Here the database is asked for the text: one query is one page, and nothing in this process
is per row. Only in the order of an integer key, and only where every value of the page looks as
Django stores it; else Python reads the page. Fields that the database does not write as Django does
are put between the others here. Tests compare the two.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Final, NamedTuple, Self, TypeAlias

from django.conf import settings as django_settings
from django.core.exceptions import EmptyResultSet
from django.db import connections, models
from django.db.models import Func, QuerySet, TextField

from .rows import Page
from .wire.ndjson import encode_rows, pair_name

MAX_ARGUMENTS: Final = 90  # databases limit those of one function call, PostgreSQL to 100


class Value(NamedTuple):
    """How one field is written: directives of the format, what they stand for, and an SQL condition
    on the values that may be written so."""

    directives: str
    arguments: tuple[str, ...]
    condition: str = ""


ToValue: TypeAlias = Callable[[str], Value]  # of a column in SQL
Write: TypeAlias = Callable[[Any, str], Value]  # of a field and its column


class Lines:
    """The lines of a queryset's rows, objects with these fields, in the order of the key."""

    def __init__(self, queryset: QuerySet[Any], parts: Sequence["str | Pairs"]) -> None:
        self._rows = queryset.order_by("pk")
        self._parts = parts
        self._is_able: bool | None = None  # not known yet
        # By whether it is the first page's: compiled once, which costs as much as hundreds of rows.
        self._statements: dict[bool, tuple[str, Sequence[Any]]] = {}

    @classmethod
    def of(cls, queryset: QuerySet[Any], names: Sequence[str]) -> Self | None:
        """None where the database can't write them."""
        query, meta = queryset.query, queryset.model._meta
        if query.annotations or query.extra or query.select_for_update:
            return None
        fields = {name: f for f in meta.concrete_fields for name in (f.attname, f.name)}
        fields["pk"] = meta.pk
        if type(meta.pk) not in _INTEGERS or not fields.keys() >= set(names):
            return None
        connection = connections[queryset.db]
        pairs = [(name, _to_value(connection, fields[name])) for name in names]
        parts: list[str | Pairs] = []
        for is_written, run in groupby(pairs, lambda pair: pair[1] is not None):
            if is_written:
                parts.append(Pairs([(name, value) for name, value in run if value is not None]))
            else:
                parts += [name for name, _ in run]
        texts = [part for part in parts if isinstance(part, Pairs)]
        if not texts or any(text.size > MAX_ARGUMENTS for text in texts):
            return None
        return cls(queryset, parts)

    def fetch(self, last: Any, count: int) -> Page | None:
        """The `count` rows after the key `last` (None: the first ones); None where Python has to
        read them. Called in a thread."""
        connection = connections[self._rows.db]
        if self._is_able is None:
            self._is_able = connection.vendor != "sqlite" or _is_able(connection)
        if not self._is_able:
            return None
        if len(self._parts) > 1 or isinstance(self._parts[0], str):
            return self._fetch_parts(last, count)
        try:
            sql, parameters = self._statement(connection, self._parts[0], last is None)
        except EmptyResultSet:
            return None
        with connection.cursor() as cursor:
            cursor.execute(sql, [last if each is _LAST else each for each in parameters] + [count])
            found, rows, key = cursor.fetchone()
        lines: bytes = found.encode() if isinstance(found, str) else found or b""
        return Page(lines, rows, key) if lines.count(b"\n") == rows else None

    def _statement(self, connection: Any, pairs: "Pairs", first: bool) -> tuple[str, Sequence[Any]]:
        if first not in self._statements:
            rows = self._rows if first else self._rows.filter(pk__gt=_Last())
            query = rows.values_list(Pairs(pairs.pairs, "{{{}}}\n"), "pk").query
            sql, parameters = query.get_compiler(connection=connection).as_sql()
            self._statements[first] = _PAGES[connection.vendor].format(sql), parameters
        return self._statements[first]

    def _fetch_parts(self, last: Any, count: int) -> Page | None:
        rows = self._rows if last is None else self._rows.filter(pk__gt=last)
        found = list(rows[:count].values_list(*self._parts, "pk"))
        if not found:
            return Page(b"", 0, last)
        names = [part if isinstance(part, str) else None for part in self._parts]
        columns = zip(*found, strict=True)
        if any(None in texts for name, texts in zip(names, columns, strict=False) if name is None):
            return None
        return Page(encode_rows(names, found), len(found), found[-1][-1])


def _to_value(connection: Any, field: Any) -> ToValue | None:
    """How a field is written; None where Python has to do it."""
    target = field
    while target.is_relation:
        target = target.target_field
    write = _WRITERS.get(connection.vendor, {}).get(type(target))
    if write is None:
        return None
    if type(target) is models.DateTimeField and not (
        django_settings.USE_TZ and connection.timezone_name == "UTC"
    ):
        return None
    if type(target) is models.DecimalField and not _is_short(connection.vendor, target):
        return None
    to_value = partial(write, target)
    return partial(_or_null, _FORMAT[connection.vendor], to_value) if field.null else to_value


def _is_short(vendor: str, field: Any) -> bool:
    """Whether a decimal is written without an exponent, and SQLite's number has all its digits."""
    digits, places = field.max_digits, field.decimal_places
    return digits is not None and places <= 6 and (vendor != "sqlite" or digits <= 15)


def _or_null(function: str, to_value: ToValue, column: str) -> Value:
    value = to_value(column)
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


class Pairs(Func):
    """Fields as pairs of a JSON object; NULL where a condition of one of the values is not met."""

    output_field = TextField()

    def __init__(self, pairs: Sequence[tuple[str, ToValue]], form: str = "{}") -> None:
        super().__init__(*(name for name, _ in pairs))
        self.pairs = pairs
        self._form = form

    @property
    def size(self) -> int:
        """How many arguments the database's function gets."""
        return sum(len(to_value("").arguments) for _, to_value in self.pairs)

    def as_sql(  # type: ignore[override]
        self, compiler: Any, connection: Any, **_: Any
    ) -> tuple[str, list[Any]]:
        """As Django's compiler wants it."""
        columns = [compiler.compile(source)[0] for source in self.get_source_expressions()]
        names = [name for name, _ in self.pairs]
        values = [to_value(c) for (_, to_value), c in zip(self.pairs, columns, strict=True)]
        pairs = [pair_name(n) + value.directives for n, value in zip(names, values, strict=True)]
        arguments = ", ".join(argument for value in values for argument in value.arguments)
        text = f"{_FORMAT[connection.vendor]}(%s, {arguments})"
        if conditions := [value.condition for value in values if value.condition]:
            text = f"CASE WHEN {' AND '.join(conditions)} THEN {text} END"
        return text, [self._form.format(",".join(pairs))]


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
