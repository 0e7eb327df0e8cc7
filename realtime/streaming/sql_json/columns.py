"""Columns that the database itself writes as JSON, by the type of their field."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from django.conf import settings as django_settings
from django.db import models
from django.db.models import Func, TextField

from .digits import DECIMAL, HEXADECIMAL, DigitTemplate, write_digits

MAX_PLACES: Final = 6  # Python writes smaller decimals with exponents


class Column(Func):
    """A field's value as the text of its JSON; NULL where Python has to write it."""

    output_field = TextField()
    default_alias = "realtime_text"  # of which Django makes the name of a column
    # What the database makes of {0}, a plain column without parameters. A % is doubled.
    sqlite: ClassVar[str]
    postgresql: ClassVar[str]
    separator: ClassVar[str] = ","  # which is in none of the texts
    # SQLite's text is not JSON but what is stored, with these digits, where there are templates.
    zeros: ClassVar[bytes] = DECIMAL
    templates: ClassVar[Sequence[DigitTemplate]] = ()
    never: ClassVar[bytes] = b",,"  # is in no such text

    def __init__(self, name: str, field: Any, *, has_null: bool, vendor: str) -> None:
        super().__init__(name)
        self._field = field
        self.has_null = has_null
        self._is_stored = bool(self.templates) and vendor == "sqlite"

    @classmethod
    def is_able(cls, field: Any, connection: Any) -> bool:
        """Return whether this database writes this field's values as Django does."""
        return True

    def as_sqlite(self, compiler: Any, connection: Any, **_: Any) -> Any:
        return self.as_json(compiler, self.sqlite)

    def as_postgresql(self, compiler: Any, connection: Any, **_: Any) -> Any:
        return self.as_json(compiler, self.postgresql)

    def as_json(self, compiler: Any, template: str) -> Any:
        """Return the SQL that a template stands for."""
        (source,) = self.get_source_expressions()
        if self.has_null:
            template = f"CASE WHEN {{0}} IS NULL THEN 'null' ELSE {template} END"
        return template.format(compiler.compile(source)[0]), []

    def join(self, values: Sequence[Any]) -> str | None:
        """Return the values as one text, as the database would; None if one is missing."""
        return None if None in values else self.separator.join(map(str, values))

    def write(self, texts: str | bytes | None, count: int) -> list[bytes] | None:
        """Return `count` texts, with separators between them, as JSON; None if one is wrong."""
        if texts is None:
            return None
        texts = texts.encode() if isinstance(texts, str) else texts
        if self._is_stored:
            is_wrong = self.never in texts
            return None if is_wrong else write_digits(texts, count, self.zeros, self.templates)
        cells = texts.split(self.separator.encode())
        return cells if len(cells) == count and _is_utf8(texts) else None


class RowidColumn(Column):
    """The key of SQLite's own, which is an integer whatever is stored."""

    sqlite = "{0}"
    postgresql = "{0}::text"


class IntegerColumn(Column):
    """An integer."""

    sqlite = "CASE WHEN typeof({0}) = 'integer' THEN {0} END"
    postgresql = "{0}::text"


class BooleanColumn(Column):
    """A boolean."""

    sqlite = postgresql = "CASE {0} WHEN true THEN 'true' WHEN false THEN 'false' END"


class TextColumn(Column):
    """A string."""

    sqlite = "json_quote({0})"
    postgresql = "to_json({0})::text"
    separator = "\n"


class DecimalColumn(Column):
    """A decimal, without an exponent, of which SQLite's number has all the digits."""

    postgresql = f"CASE WHEN scale({{0}}) <= {MAX_PLACES} THEN '\"' || {{0}} || '\"' END"

    @classmethod
    def is_able(cls, field: Any, connection: Any) -> bool:
        if field.max_digits is None or field.decimal_places > MAX_PLACES:
            return False
        return bool(connection.vendor != "sqlite" or field.max_digits <= 15)

    def as_sqlite(self, compiler: Any, connection: Any, **_: Any) -> Any:
        # The number is near one with so many places, so that both ways of rounding agree.
        places = self._field.decimal_places
        most, scaled = f"1e{15 - places}", f"{{0}} * 1e{places}"
        template = (
            f"CASE WHEN {{0}} BETWEEN -{most} AND {most} AND "
            f"abs({scaled} - CAST({scaled} AS INTEGER)) NOT BETWEEN 0.25 AND 0.75 "
            f"THEN printf('\"%%.{places}f\"', {{0}}) END"
        )
        return self.as_json(compiler, template)


# A view may have NULL in spite of its model, which would be left out between the texts.
_STORED: Final = "CASE WHEN {0} <> 'null' THEN {0} ELSE '?' END"


class DateColumn(Column):
    """A date."""

    sqlite = _STORED
    postgresql = (
        "CASE WHEN {0} BETWEEN '0001-01-01' AND '9999-12-31' "
        "THEN '\"' || to_char({0}, 'YYYY-MM-DD') || '\"' END"
    )
    templates = (DigitTemplate("0000-00-00", '"0000-00-00"'),)


class DateTimeColumn(Column):
    """A datetime in UTC, with milliseconds where there are microseconds."""

    sqlite = _STORED
    # Perhaps of a column that Django did not make, of another type.
    postgresql = (
        "CASE WHEN pg_typeof({0}) = 'timestamptz'::regtype "
        "AND {utc} >= '0001-01-01' AND {utc} < '10000-01-01' "
        "THEN '\"' || to_char({utc}, 'YYYY-MM-DD\"T\"HH24:MI:SS' || "
        "CASE WHEN date_trunc('second', {utc}) = {utc} THEN '' ELSE '.MS' END) || 'Z\"' END"
    ).replace("{utc}", "({0} AT TIME ZONE 'UTC')")
    templates = (
        DigitTemplate("0000-00-00 00:00:00.000000", '"0000-00-00T00:00:00.000Z"'),
        DigitTemplate("0000-00-00 00:00:00", '"0000-00-00T00:00:00Z"'),
    )
    never = b".000000"  # JSON has no milliseconds then

    @classmethod
    def is_able(cls, field: Any, connection: Any) -> bool:
        return bool(django_settings.USE_TZ) and connection.timezone_name == "UTC"


class UUIDColumn(Column):
    """A UUID; SQLite stores 32 hexadecimal digits."""

    sqlite = _STORED
    postgresql = "'\"' || {0} || '\"'"
    zeros = HEXADECIMAL
    templates = (DigitTemplate("0" * 32, '"00000000-0000-0000-0000-000000000000"'),)


INTEGERS: Final = (
    *(models.AutoField, models.BigAutoField, models.SmallAutoField),
    *(models.IntegerField, models.BigIntegerField, models.SmallIntegerField),
    *(models.PositiveIntegerField, models.PositiveBigIntegerField),
    models.PositiveSmallIntegerField,
)
_TEXTS: Final = (
    *(models.CharField, models.TextField, models.SlugField, models.EmailField, models.URLField),
)
# By the very type: a subclass is the site's own, which may mean anything.
_COLUMNS: Final[dict[Any, type[Column]]] = {
    **dict.fromkeys(INTEGERS, IntegerColumn),
    **dict.fromkeys(_TEXTS, TextColumn),
    models.BooleanField: BooleanColumn,
    models.DateField: DateColumn,
    models.DateTimeField: DateTimeColumn,
    models.DecimalField: DecimalColumn,
    models.UUIDField: UUIDColumn,
}


def column_of(name: str, field: Any, connection: Any) -> Column | None:
    """Return the column of a field; None where Python has to write it."""
    target = field
    while target.is_relation:
        if type(target) not in (models.ForeignKey, models.OneToOneField):
            return None
        target = target.target_field
    kind = _COLUMNS.get(type(target))
    if kind is None or not kind.is_able(target, connection):
        return None
    # Any column but a rowid may hold what was put there; and a view has none.
    is_rowid = field.primary_key and isinstance(field, models.AutoField)
    if kind is IntegerColumn and is_rowid and field.model._meta.managed:
        kind = RowidColumn
    return kind(name, target, has_null=field.null, vendor=connection.vendor)


def _is_utf8(text: bytes) -> bool:
    """Return whether it is UTF-8: SQLite keeps whatever it is given as text."""
    try:
        return text.isascii() or bool(text.decode())
    except UnicodeDecodeError:
        return False
