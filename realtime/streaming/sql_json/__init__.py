"""Lines of NDJSON from values that the database itself has written as text, a page at a time.

Most of what a row costs is to make Python objects of what the database has, and text of those
again. Here one query is one page, each of its columns comes as one text, and no line of Python runs
per row. Only in the order of an integer key, and only where every value of the page looks as Django
stores it; else Python reads the page. Fields that the database does not write as Django does are
read as they are, and put between the others. Tests compare the two.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, Self

from django.core.exceptions import EmptyResultSet
from django.db import DataError, connections, models
from django.db.models import Func, QuerySet

from ..json_columns import encode_column, join_columns
from ..pages import Page
from .columns import INTEGERS, Column, column_of

MAX_FIELDS: Final = 500  # databases limit the columns of a statement, PostgreSQL to 1,664

# A column's name and separator. SQLite aggregates in the order of the rows that it is given;
# `ORDER BY` came with 3.44. As a BLOB, the text is not decoded before it has been checked.
_TOGETHER: Final = {
    "sqlite": "CAST(group_concat({}, '{}') AS BLOB)",
    "postgresql": "string_agg({}, '{}' ORDER BY pk)",
}


class Lines:
    """The lines of a queryset's rows, objects with these fields, in the order of the key."""

    def __init__(
        self, queryset: QuerySet[Any], names: Sequence[str], columns: Sequence[Column | None]
    ) -> None:
        self._rows = queryset.order_by("pk")
        self._names = names
        self._columns = columns
        self._texts = [column or name for name, column in zip(names, columns, strict=True)]
        self._is_able: bool | None = None  # not known yet
        # By whether it is the first page's: compiled once, which costs as much as hundreds of rows.
        self._statements: dict[bool, tuple[str, Sequence[Any]]] = {}

    @classmethod
    def of(cls, queryset: QuerySet[Any], names: Sequence[str]) -> Self | None:
        """Return the lines of a queryset; None where the database can't write them."""
        query, meta, connection = queryset.query, queryset.model._meta, connections[queryset.db]
        if query.annotations or query.extra or query.select_for_update:
            return None
        fields = {name: f for f in meta.concrete_fields for name in (f.attname, f.name)}
        fields["pk"] = meta.pk
        if type(meta.pk) not in INTEGERS or not fields.keys() >= set(names):
            return None
        if len(names) > MAX_FIELDS or connection.vendor not in _TOGETHER:
            return None
        columns = [column_of(name, fields[name], connection) for name in names]
        return cls(queryset, names, columns) if any(columns) else None

    def fetch(self, last: Any, count: int) -> Page | None:
        """Return the `count` rows after the key `last` (None: the first ones).

        None where Python has to read them. Called in a thread.
        """
        connection = connections[self._rows.db]
        if self._is_able is None:
            self._is_able = is_able(connection)
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
        if not rows:
            return Page(b"", 0, key)
        columns = zip(self._columns, texts, strict=True)
        cells = (column.write(text, rows) for column, text in columns if column is not None)
        return self._page(cells, rows, key)

    def _statement(self, connection: Any, first: bool) -> tuple[str, Sequence[Any]]:
        if first not in self._statements:
            rows = self._rows if first else self._rows.filter(pk__gt=_Last())
            query = rows.values_list(*self._texts, "pk").query
            sql, parameters = query.get_compiler(connection=connection).as_sql()
            names = [f"text{number}" for number in range(len(self._texts))]
            together = _TOGETHER[connection.vendor]
            texts = [
                together.format(name, column.separator)
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
        *columns, keys = zip(*found, strict=True)
        cells = (
            encode_column(values)
            if column is None
            else column.write(column.join(values), len(found))
            for column, values in zip(self._columns, columns, strict=True)
        )
        return self._page(cells, len(found), keys[-1])

    def _page(self, cells: Iterable[list[bytes] | None], rows: int, key: Any) -> Page | None:
        written = []
        for column in cells:
            if column is None:
                return None
            written.append(column)
        return Page(join_columns(self._names, written, rows), rows, key)


class _Last(Func):
    """Stands for the last key of the page before."""

    output_field = models.BigIntegerField()

    def as_sql(  # type: ignore[override]
        self, compiler: Any, connection: Any, **_: Any
    ) -> tuple[str, list[Any]]:
        return "%s", [_LAST]


_LAST: Final = object()


def is_able(connection: Any) -> bool:
    """Return whether this database has JSON's functions, and its texts are in UTF-8."""
    if connection.vendor != "sqlite":
        return True
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA encoding")
        in_utf8 = cursor.fetchone() == ("UTF-8",)
    return in_utf8 and bool(connection.features.supports_json_field)
