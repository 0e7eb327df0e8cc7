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
from django.db import DataError, connections, models
from django.db.models import Func, QuerySet, TextField
from django.db.models.functions import Cast

from .rows import Page
from .wire.ndjson import encode_rows, pair_name

REFUSED: Final = b"\x01"  # in place of a line; JSON has no such character
MAX_PLACES: Final = 6  # Python writes smaller decimals with exponents
MAX_ARGUMENTS: Final = 90  # databases limit those of one function call, PostgreSQL to 100


class Shapes(NamedTuple):
    """The forms in which Django stores a value as text, once `table` has made its digits zeros.

    Looked at here and not in SQL, where a look at each character costs more than all the rest.
    """

    table: bytes
    forms: tuple[bytes, ...]
    never: bytes = b",,"

    def fit(self, texts: bytes, count: int) -> bool:
        """Whether these are so many texts, a comma behind each, and all have one of the forms."""
        if self.never in texts:
            return False
        plain = texts.translate(self.table)
        if plain == self.forms[0] * count:  # as most of the time
            return True
        forms = {form.removesuffix(b",") for form in self.forms}
        each = plain.removesuffix(b",").split(b",")
        return len(each) == count and set(each) <= forms


ANY: Final = Shapes(b"", ())  # of what is not stored as text, or looked at by the database


class Value(NamedTuple):
    """How a field is written: directives of the format, what they stand for, an SQL condition on
    the values that may be written so, and the shapes of those that are stored as text."""

    directives: str
    arguments: tuple[str, ...]
    condition: str = ""
    shapes: Shapes = ANY


ToValue: TypeAlias = Callable[[str], Value]  # of a column in SQL
Write: TypeAlias = Callable[[Any, str], Value]  # of a field and its column


class Pair(NamedTuple):
    """A field by its name in the object."""

    name: str
    to_value: ToValue
    is_nullable: bool

    @property
    def shapes(self) -> Shapes:
        """Those that its column has to have."""
        return self.to_value("").shapes


class Lines:
    """The lines of a queryset's rows, objects with these fields, in the order of the key."""

    def __init__(self, queryset: QuerySet[Any], parts: Sequence["str | Pairs"]) -> None:
        self._rows = queryset.order_by("pk")
        self._parts = parts
        pairs = [pair for part in parts if isinstance(part, Pairs) for pair in part.pairs]
        self._shaped = list({pair.name: pair for pair in pairs if pair.shapes is not ANY}.values())
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
        pairs = [(name, _to_pair(connection, name, fields[name])) for name in names]
        parts: list[str | Pairs] = []
        for is_written, run in groupby(pairs, lambda each: each[1] is not None):
            if is_written:
                parts.append(Pairs([pair for _, pair in run if pair is not None]))
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
        try:
            if len(self._parts) > 1:
                return self._fetch_parts(last, count)
            return self._fetch_lines(connection, last, count)
        except (DataError, EmptyResultSet):  # a page too large for one text; no rows at all
            return None

    def _fetch_lines(self, connection: Any, last: Any, count: int) -> Page | None:
        sql, parameters = self._statement(connection, last is None)
        with connection.cursor() as cursor:
            cursor.execute(sql, [last if each is _LAST else each for each in parameters] + [count])
            found, rows, key, *shaped = cursor.fetchone()
        lines: bytes = found.encode() if isinstance(found, str) else found or b""
        if REFUSED in lines or not _is_utf8(lines):
            return None
        for pair, texts, count in zip(self._shaped, shaped[::2], shaped[1::2], strict=True):
            stored = b"" if texts is None else texts + b","
            if not pair.shapes.fit(stored, count if pair.is_nullable else rows):
                return None
        return Page(lines, rows, key)

    def _statement(self, connection: Any, first: bool) -> tuple[str, Sequence[Any]]:
        if first not in self._statements:
            rows = self._rows if first else self._rows.filter(pk__gt=_Last())
            (part,) = self._parts
            assert isinstance(part, Pairs)
            line = Pairs(part.pairs, form="{{{}}}\n", otherwise=f"'{REFUSED.decode()}'")
            query = rows.values_list(line, "pk", *(pair.name for pair in self._shaped)).query
            sql, parameters = query.get_compiler(connection=connection).as_sql()
            texts = [f"text{number}" for number in range(len(self._shaped))]
            shaped = [
                f", {_TEXTS_OF_SQLITE.format(text)}, {f'count({text})' if pair.is_nullable else 0}"
                for text, pair in zip(texts, self._shaped, strict=True)
            ]
            page = _PAGES[connection.vendor].format(
                columns=", ".join(["line", "pk", *texts]), rows=sql, shaped="".join(shaped)
            )
            self._statements[first] = page, parameters
        return self._statements[first]

    def _fetch_parts(self, last: Any, count: int) -> Page | None:
        rows = self._rows if last is None else self._rows.filter(pk__gt=last)
        texts = [Cast(pair.name, TextField()) for pair in self._shaped]
        found = list(rows[:count].values_list(*self._parts, *texts, "pk"))
        if not found:
            return Page(b"", 0, last)
        names = [part if isinstance(part, str) else None for part in self._parts]
        columns = list(zip(*found, strict=True))
        if any(None in pairs for name, pairs in zip(names, columns, strict=False) if name is None):
            return None
        for pair, column in zip(self._shaped, columns[len(names) :], strict=False):
            stored = [text for text in column if text is not None]
            if len(stored) < len(found) and not pair.is_nullable:
                return None
            text = "".join(f"{each}," for each in stored)
            if not pair.shapes.fit(text.encode(), len(stored)):
                return None
        return Page(encode_rows(names, found), len(found), found[-1][-1])


def _is_utf8(text: bytes) -> bool:
    """SQLite keeps whatever it is given as text."""
    try:
        return text.isascii() or bool(text.decode())
    except UnicodeDecodeError:
        return False


def _to_pair(connection: Any, name: str, field: Any) -> Pair | None:
    """How a field is written; None where Python has to do it."""
    target, vendor = field, connection.vendor
    while target.is_relation:
        if type(target) not in (models.ForeignKey, models.OneToOneField):
            return None  # a site's own, which may mean anything
        target = target.target_field
    write = _WRITERS.get(vendor, {}).get(type(target))
    if write is None:
        return None
    if type(target) is models.DateTimeField and not (
        django_settings.USE_TZ and connection.timezone_name == "UTC"
    ):
        return None
    if type(target) is models.DecimalField and not _is_short(vendor, target):
        return None
    if write is _sqlite_integer and field.primary_key and isinstance(field, models.AutoField):
        write = _sqlite_rowid
    to_value: ToValue = partial(write, target)
    if field.null:
        to_value = partial(_or_null, _FORMAT[vendor], to_value)
    elif vendor == "postgresql":
        to_value = partial(_if_not_null, to_value)  # a view's column may be
    return Pair(name, to_value, field.null)


def _is_short(vendor: str, field: Any) -> bool:
    """Whether a decimal is written without an exponent, and SQLite's number has all its digits."""
    digits, places = field.max_digits, field.decimal_places
    return digits is not None and places <= MAX_PLACES and (vendor != "sqlite" or digits <= 15)


def _or_null(function: str, to_value: ToValue, column: str) -> Value:
    value = to_value(column)
    text = f"{function}('{value.directives.replace('%', '%%')}', {', '.join(value.arguments)})"
    return Value(
        "%s",
        (f"CASE WHEN {column} IS NULL THEN 'null' ELSE {text} END",),
        value.condition and f"({column} IS NULL OR {value.condition})",
        value.shapes,
    )


def _if_not_null(to_value: ToValue, column: str) -> Value:
    value = to_value(column)
    conditions = [f"{column} IS NOT NULL", *filter(None, [value.condition])]
    return value._replace(condition=" AND ".join(conditions))


def _is_able(sqlite: Any) -> bool:
    """Whether this SQLite has JSON's functions, and the database is one in UTF-8."""
    with sqlite.cursor() as cursor:
        cursor.execute("PRAGMA encoding")
        in_utf8 = cursor.fetchone() == ("UTF-8",)
    return in_utf8 and bool(sqlite.features.supports_json_field)


class Pairs(Func):
    """Fields as pairs of a JSON object; `otherwise` where the condition of a value is not met."""

    output_field = TextField()
    default_alias = "realtime_pairs"  # of which Django makes the name of a column

    def __init__(self, pairs: Sequence[Pair], *, form: str = "{}", otherwise: str = "NULL") -> None:
        super().__init__(*(pair.name for pair in pairs))
        self.pairs = pairs
        self._form = form
        self._otherwise = otherwise

    @property
    def size(self) -> int:
        """How many arguments the database's function gets."""
        return sum(len(pair.to_value("").arguments) for pair in self.pairs)

    def as_sql(  # type: ignore[override]
        self, compiler: Any, connection: Any, **_: Any
    ) -> tuple[str, list[Any]]:
        """As Django's compiler wants it."""
        columns = [compiler.compile(source)[0] for source in self.get_source_expressions()]
        values = [pair.to_value(c) for pair, c in zip(self.pairs, columns, strict=True)]
        names = [pair_name(pair.name) for pair in self.pairs]
        pairs = [name + value.directives for name, value in zip(names, values, strict=True)]
        arguments = ", ".join(argument for value in values for argument in value.arguments)
        text = f"{_FORMAT[connection.vendor]}(%s, {arguments})"
        if conditions := [value.condition for value in values if value.condition]:
            text = f"CASE WHEN {' AND '.join(conditions)} THEN {text} ELSE {self._otherwise} END"
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
    "sqlite": "WITH page({columns}) AS ({rows} LIMIT %s) "
    "SELECT CAST(group_concat(line, '') AS BLOB), count(*), max(pk){shaped} FROM page",
    "postgresql": "WITH page({columns}) AS ({rows} LIMIT %s) "
    "SELECT string_agg(line, '' ORDER BY pk), count(*), max(pk){shaped} FROM page",
}
_TEXTS_OF_SQLITE: Final = "CAST(group_concat({}) AS BLOB)"  # with commas, which no shape has
_DIGITS: Final = bytes.maketrans(b"123456789", b"0" * 9)
_HEXADECIMALS: Final = bytes.maketrans(b"123456789abcdef", b"0" * 15)
_INTEGERS: Final = (
    *(models.AutoField, models.BigAutoField, models.SmallAutoField),
    *(models.IntegerField, models.BigIntegerField, models.SmallIntegerField),
    *(models.PositiveIntegerField, models.PositiveBigIntegerField),
    models.PositiveSmallIntegerField,
)
_TEXTS: Final = (
    *(models.CharField, models.TextField, models.SlugField, models.EmailField, models.URLField),
)


def _sqlite_rowid(field: Any, column: str) -> Value:
    return Value("%d", (column,))


def _sqlite_integer(field: Any, column: str) -> Value:
    # Any column but a rowid may hold what was put there.
    return Value("%d", (column,), f"typeof({column}) = 'integer'")


def _sqlite_boolean(field: Any, column: str) -> Value:
    text = f"CASE {column} WHEN 1 THEN 'true' ELSE 'false' END"
    return Value("%s", (text,), f"{column} IN (0, 1)")


def _sqlite_text(field: Any, column: str) -> Value:
    return Value("%s", (f"json_quote({column})",))


def _sqlite_date(field: Any, column: str) -> Value:
    return Value('"%s"', (column,), shapes=Shapes(_DIGITS, (b"0000-00-00,",)))


def _sqlite_datetime(field: Any, column: str) -> Value:
    """`2025-01-01 00:00:00`, perhaps with six digits more, of which JSON has three."""
    forms = (b"0000-00-00 00:00:00.000000,", b"0000-00-00 00:00:00,")
    shapes = Shapes(_DIGITS, forms, never=b".000000,")  # JSON has none of them then
    return Value('"%.10sT%.12sZ"', (column, f"substr({column}, 12)"), shapes=shapes)


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
    shapes = Shapes(_HEXADECIMALS, (b"0" * 32 + b",",))
    return Value('"%.8s-%.4s-%.4s-%.4s-%s"', parts, shapes=shapes)


def _postgresql_plain(field: Any, column: str) -> Value:
    return Value("%s", (column,))


def _postgresql_boolean(field: Any, column: str) -> Value:
    return Value("%s", (f"CASE WHEN {column} THEN 'true' ELSE 'false' END",))


def _postgresql_text(field: Any, column: str) -> Value:
    return Value("%s", (f"to_json({column})",))


def _postgresql_date(field: Any, column: str) -> Value:
    years = f"{column} BETWEEN '0001-01-01' AND '9999-12-31'"
    return Value('"%s"', (f"to_char({column}, 'YYYY-MM-DD')",), years)


def _postgresql_datetime(field: Any, column: str) -> Value:
    """With milliseconds where there are microseconds."""
    utc = f"({column} AT TIME ZONE 'UTC')"
    whole = f"to_char({utc}, 'YYYY-MM-DD\"T\"HH24:MI:SS')"
    part = f"CASE WHEN date_trunc('second', {utc}) = {utc} THEN '' ELSE to_char({utc}, '.MS') END"
    years = f"{utc} >= '0001-01-01' AND {utc} < '10000-01-01'"
    is_aware = f"pg_typeof({column}) = 'timestamptz'::regtype"  # a column that Django did not make
    return Value('"%s%sZ"', (whole, part), f"{is_aware} AND {years}")


def _postgresql_decimal(field: Any, column: str) -> Value:
    return Value('"%s"', (column,), f"scale({column}) <= {MAX_PLACES}")


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
        models.DecimalField: _postgresql_decimal,
        models.UUIDField: _postgresql_in_quotes,
    },
}
