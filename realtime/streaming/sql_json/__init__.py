"""Lines of NDJSON from values that the database itself has written as text, a page at a time.

Most of what a row costs is to make Python objects of what the database has, and text of those
again. Here one query is one page, each of its columns comes as one text, and no line of Python runs
per row. Only in the order of an integer key, and only where every value of the page looks as Django
stores it; else Python reads the page. Fields that the database does not write as Django does are
read as they are, and put between the others. Tests compare the two.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any, Final, NamedTuple, Self, TypeAlias

from django.conf import settings as django_settings
from django.core.exceptions import EmptyResultSet
from django.db import DataError, connections, models
from django.db.models import Func, QuerySet, TextField

from ..json_columns import encode_column, join_columns
from ..pages import Page

MAX_PLACES: Final = 6  # Python writes smaller decimals with exponents
MAX_FIELDS: Final = 500  # databases limit the columns of a statement, PostgreSQL to 1,664
NULL: Final = "\x01"  # stands for NULL between texts that are rewritten


class Form(NamedTuple):
    """How some values are stored, with a 0 for every digit, and what becomes of them: a pattern,
    and which bytes of a value take which place there."""

    stored: bytes
    written: bytes
    moves: tuple[tuple[int, int, int], ...]  # from, to, how many

    def write(self, texts: bytes, count: int) -> list[bytes]:
        """So many texts of this form, a comma behind each, as they are written.

        Byte by byte of the form, and all values at once: a call for each would be the most
        expensive part of its row.
        """
        written = bytearray((self.written + b",") * count)
        stride, step = len(self.written) + 1, len(self.stored) + 1
        for source, target, length in self.moves:
            for offset in range(length):
                written[target + offset :: stride] = texts[source + offset :: step]
        return bytes(written[:-1]).split(b",")


class Forms(NamedTuple):
    """The forms in which Django stores a kind of value as text.

    Looked at here and not in SQL, where a look at each character costs more than all the rest.
    """

    digits: bytes  # a table that makes zeros of them
    forms: tuple[Form, ...]
    never: bytes = b",,"

    def write(self, texts: bytes, count: int) -> list[bytes] | None:
        """So many texts with commas between them, as they are written; None if one has no form."""
        texts += b","
        if self.never in texts:
            return None
        plain = texts.translate(self.digits)
        for form in self.forms:
            if plain == (form.stored + b",") * count:  # all of them, as most of the time
                return form.write(texts, count)
        stored, kinds = texts.split(b",")[:-1], plain.split(b",")[:-1]
        written: dict[bytes, Iterator[bytes]] = {NULL.encode(): repeat(b"null")}
        for form in self.forms:
            same = [
                each + b"," for each, kind in zip(stored, kinds, strict=True) if kind == form.stored
            ]
            written[form.stored] = iter(form.write(b"".join(same), len(same)) if same else ())
        if len(kinds) != count or not written.keys() >= set(kinds):
            return None
        return [next(written[kind]) for kind in kinds]


class Column(NamedTuple):
    """The SQL of a value's text: NULL where Python has to write it. It is JSON, unless it has
    `forms`. `separator` is in none of the texts."""

    text: str
    forms: Forms | None = None
    separator: str = ","

    def write(self, texts: bytes | None, count: int) -> list[bytes] | None:
        """So many texts, with separators between them, as JSON; None if one is missing or wrong."""
        if texts is None:
            return None if count else []
        if self.forms is not None:
            return self.forms.write(texts, count)
        cells = texts.split(self.separator.encode())
        return cells if len(cells) == count and _is_utf8(texts) else None


ToColumn: TypeAlias = Callable[[str], Column]  # of a column in SQL


class Lines:
    """The lines of a queryset's rows, objects with these fields, in the order of the key."""

    def __init__(
        self, queryset: QuerySet[Any], names: Sequence[str], columns: Sequence[ToColumn | None]
    ) -> None:
        self._rows = queryset.order_by("pk")
        self._names = names
        self._columns = [None if make is None else make("") for make in columns]
        self._texts = [
            name if make is None else Text(name, make)
            for name, make in zip(names, columns, strict=True)
        ]
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
        if len(names) > MAX_FIELDS:
            return None
        connection = connections[queryset.db]
        columns = [_to_column(connection, fields[name]) for name in names]
        return cls(queryset, names, columns) if any(columns) else None

    def fetch(self, last: Any, count: int) -> Page | None:
        """The `count` rows after the key `last` (None: the first ones); None where Python has to
        read them. Called in a thread."""
        connection = connections[self._rows.db]
        if self._is_able is None:
            self._is_able = connection.vendor != "sqlite" or _is_able(connection)
        if not self._is_able:
            return None
        try:
            if None in self._columns:
                return self._fetch_rows(last, count)
            return self._fetch_columns(connection, last, count)
        except (DataError, EmptyResultSet):  # a page too large for one text; no rows at all
            return None

    def _fetch_columns(self, connection: Any, last: Any, count: int) -> Page | None:
        sql, parameters = self._statement(connection, last is None)
        with connection.cursor() as cursor:
            cursor.execute(sql, [last if each is _LAST else each for each in parameters] + [count])
            rows, key, *texts = cursor.fetchone()
        written = []
        for column, text in zip(self._columns, texts, strict=True):
            assert column is not None
            cells = column.write(text.encode() if isinstance(text, str) else text, rows)
            if cells is None:
                return None
            written.append(cells)
        return Page(join_columns(self._names, written, rows), rows, key)

    def _statement(self, connection: Any, first: bool) -> tuple[str, Sequence[Any]]:
        if first not in self._statements:
            rows = self._rows if first else self._rows.filter(pk__gt=_Last())
            query = rows.values_list(*self._texts, "pk").query
            sql, parameters = query.get_compiler(connection=connection).as_sql()
            names = [f"text{number}" for number in range(len(self._texts))]
            together = _TOGETHER[connection.vendor]
            texts = [
                together[column.separator].format(name)
                for name, column in zip(names, self._columns, strict=True)
                if column is not None
            ]
            page = (
                f"WITH page({', '.join([*names, 'pk'])}) AS ({sql} LIMIT %s) "
                f"SELECT {', '.join(['count(*)', 'max(pk)', *texts])} FROM page"
            )
            self._statements[first] = page, parameters
        return self._statements[first]

    def _fetch_rows(self, last: Any, count: int) -> Page | None:
        rows = self._rows if last is None else self._rows.filter(pk__gt=last)
        found = list(rows[:count].values_list(*self._texts, "pk"))
        if not found:
            return Page(b"", 0, last)
        written = []
        for column, values in zip(self._columns, zip(*found, strict=True), strict=False):
            if column is None:
                written.append(encode_column(values))
                continue
            if None in values:
                return None
            texts = column.separator.join(map(str, values))
            cells = column.write(texts.encode(), len(found))
            if cells is None:
                return None
            written.append(cells)
        return Page(join_columns(self._names, written, len(found)), len(found), found[-1][-1])


def _is_utf8(text: bytes) -> bool:
    """SQLite keeps whatever it is given as text."""
    try:
        return text.isascii() or bool(text.decode())
    except UnicodeDecodeError:
        return False


def _to_column(connection: Any, field: Any) -> ToColumn | None:
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
    is_rowid = field.primary_key and isinstance(field, models.AutoField)
    if write is _sqlite_integer and is_rowid and field.model._meta.managed:  # no view's column
        write = _sqlite_rowid
    return partial(_or_null if field.null else _itself, partial(write, target))


def _is_short(vendor: str, field: Any) -> bool:
    """Whether a decimal is written without an exponent, and SQLite's number has all its digits."""
    digits, places = field.max_digits, field.decimal_places
    return digits is not None and places <= MAX_PLACES and (vendor != "sqlite" or digits <= 15)


def _itself(to_column: ToColumn, name: str) -> Column:
    column = to_column(name)
    if column.forms is None:
        return column
    # A view's column may be NULL, and would be left out between the texts.
    return column._replace(text=f"ifnull({name}, '?')")


def _or_null(to_column: ToColumn, name: str) -> Column:
    column = to_column(name)
    if column.forms is None:
        text = f"CASE WHEN {name} IS NULL THEN 'null' ELSE {column.text} END"
    else:  # and who has stored that mark is left to Python
        marked = f"CASE WHEN {name} <> '{NULL}' THEN {name} ELSE '?' END"
        text = f"CASE WHEN {name} IS NULL THEN '{NULL}' ELSE {marked} END"
    return column._replace(text=text)


def _is_able(sqlite: Any) -> bool:
    """Whether this SQLite has JSON's functions, and the database is one in UTF-8."""
    with sqlite.cursor() as cursor:
        cursor.execute("PRAGMA encoding")
        in_utf8 = cursor.fetchone() == ("UTF-8",)
    return in_utf8 and bool(sqlite.features.supports_json_field)


class Text(Func):
    """A field's value as the text that a `Column` is of."""

    output_field = TextField()
    default_alias = "realtime_text"  # of which Django makes the name of a column

    def __init__(self, name: str, to_column: ToColumn) -> None:
        super().__init__(name)
        self._to_column = to_column

    def as_sql(  # type: ignore[override]
        self, compiler: Any, connection: Any, **_: Any
    ) -> tuple[str, list[Any]]:
        """As Django's compiler wants it."""
        (source,) = self.get_source_expressions()
        return self._to_column(compiler.compile(source)[0]).text, []


class _Last(Func):
    """Stands for the last key of the page before."""

    output_field = models.BigIntegerField()

    def as_sql(  # type: ignore[override]
        self, compiler: Any, connection: Any, **_: Any
    ) -> tuple[str, list[Any]]:
        return "%s", [_LAST]


_LAST: Final = object()

# What JSON makes of the values, in the SQL of each database, where a % is doubled. `name` is used
# several times: it is a plain column, without parameters.

_TOGETHER: Final = {
    # SQLite aggregates in the order of the rows that it is given; `ORDER BY` came with 3.44. As a
    # BLOB, the text is not decoded before it has been looked at.
    "sqlite": {
        ",": "CAST(group_concat({}) AS BLOB)",
        "\n": "CAST(group_concat({}, '\n') AS BLOB)",
    },
    "postgresql": {
        ",": "string_agg({}, ',' ORDER BY pk)",
        "\n": "string_agg({}, E'\\n' ORDER BY pk)",
    },
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
_INTEGERS: Final = (
    *(models.AutoField, models.BigAutoField, models.SmallAutoField),
    *(models.IntegerField, models.BigIntegerField, models.SmallIntegerField),
    *(models.PositiveIntegerField, models.PositiveBigIntegerField),
    models.PositiveSmallIntegerField,
)
_TEXTS: Final = (
    *(models.CharField, models.TextField, models.SlugField, models.EmailField, models.URLField),
)


def _sqlite_rowid(field: Any, name: str) -> Column:
    return Column(name)


def _sqlite_integer(field: Any, name: str) -> Column:
    # Any column but a rowid may hold what was put there.
    return Column(f"CASE WHEN typeof({name}) = 'integer' THEN {name} END")


def _sqlite_boolean(field: Any, name: str) -> Column:
    return Column(f"CASE {name} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END")


def _sqlite_text(field: Any, name: str) -> Column:
    return Column(f"json_quote({name})", separator="\n")


def _sqlite_date(field: Any, name: str) -> Column:
    return Column(name, _DATES)


def _sqlite_datetime(field: Any, name: str) -> Column:
    """`2025-01-01 00:00:00`, perhaps with six digits more, of which JSON has three."""
    return Column(name, _DATETIMES)


def _sqlite_decimal(field: Any, name: str) -> Column:
    # The number is near one with so many places, so that both ways of rounding agree.
    places = field.decimal_places
    most, scaled = f"1e{15 - places}", f"{name} * 1e{places}"
    return Column(
        f"CASE WHEN {name} BETWEEN -{most} AND {most} AND "
        f"abs({scaled} - CAST({scaled} AS INTEGER)) NOT BETWEEN 0.25 AND 0.75 "
        f"THEN printf('\"%%.{places}f\"', {name}) END"
    )


def _sqlite_uuid(field: Any, name: str) -> Column:
    """32 hexadecimal digits."""
    return Column(name, _UUIDS)


def _postgresql_plain(field: Any, name: str) -> Column:
    return Column(f"{name}::text")


def _postgresql_boolean(field: Any, name: str) -> Column:
    return Column(f"CASE {name} WHEN true THEN 'true' WHEN false THEN 'false' END")


def _postgresql_text(field: Any, name: str) -> Column:
    return Column(f"to_json({name})::text", separator="\n")


def _postgresql_date(field: Any, name: str) -> Column:
    years = f"{name} BETWEEN '0001-01-01' AND '9999-12-31'"
    return Column(f"CASE WHEN {years} THEN '\"' || to_char({name}, 'YYYY-MM-DD') || '\"' END")


def _postgresql_datetime(field: Any, name: str) -> Column:
    """With milliseconds where there are microseconds."""
    utc, seconds = f"({name} AT TIME ZONE 'UTC')", "'YYYY-MM-DD\"T\"HH24:MI:SS'"
    is_whole = f"date_trunc('second', {utc}) = {utc}"
    years = f"{utc} >= '0001-01-01' AND {utc} < '10000-01-01'"
    is_aware = f"pg_typeof({name}) = 'timestamptz'::regtype"  # a column that Django did not make
    return Column(
        f"CASE WHEN {is_aware} AND {years} THEN "
        f"'\"' || to_char({utc}, CASE WHEN {is_whole} THEN {seconds} ELSE {seconds} || '.MS' END)"
        f" || 'Z\"' END"
    )


def _postgresql_decimal(field: Any, name: str) -> Column:
    return Column(f"CASE WHEN scale({name}) <= {MAX_PLACES} THEN '\"' || {name} || '\"' END")


def _postgresql_in_quotes(field: Any, name: str) -> Column:
    return Column(f"'\"' || {name} || '\"'")


_WRITERS: Final[Mapping[str, Mapping[Any, Callable[[Any, str], Column]]]] = {
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
