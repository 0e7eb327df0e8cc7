"""Lines of NDJSON from values that the database itself has written as text, a page at a time.

Most of what a row costs is to make Python objects of what the database has, and text of those
again. Here one query is one page, each of its columns comes as one text, and no line of Python runs
per row. Only in the order of an integer key, and only where every value of the page looks as Django
stores it; else Python reads the page. Fields that the database does not write as Django does are
read as they are, and put between the others. Tests compare the two.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, Self

from django.conf import settings as django_settings
from django.core.exceptions import EmptyResultSet
from django.db import DataError, connections, models
from django.db.models import Func, QuerySet, TextField

from ..json_columns import encode_column, join_columns
from ..pages import Page
from . import postgresql, sqlite
from .column import INTEGERS, MAX_PLACES, NULL, Column, ToColumn

MAX_FIELDS: Final = 500  # databases limit the columns of a statement, PostgreSQL to 1,664


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
        if type(meta.pk) not in INTEGERS or not fields.keys() >= set(names):
            return None
        if len(names) > MAX_FIELDS:
            return None
        connection = connections[queryset.db]
        columns = [_to_column(connection, fields[name]) for name in names]
        return cls(queryset, names, columns) if any(columns) else None

    def fetch(self, last: Any, count: int) -> Page | None:
        """Return the `count` rows after the key `last` (None: the first ones).

        None where Python has to read them. Called in a thread.
        """
        connection = connections[self._rows.db]
        if self._is_able is None:
            self._is_able = connection.vendor != "sqlite" or sqlite.is_able(connection)
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
    if write is sqlite.integer and is_rowid and field.model._meta.managed:  # no view's column
        write = sqlite.rowid
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

_WRITERS: Final = {"sqlite": sqlite.WRITERS, "postgresql": postgresql.WRITERS}
_TOGETHER: Final = {"sqlite": sqlite.TOGETHER, "postgresql": postgresql.TOGETHER}
