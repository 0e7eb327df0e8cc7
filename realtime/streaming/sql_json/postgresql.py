"""What JSON makes of the values, in the SQL of PostgreSQL, where a % is doubled.

`name` is used several times: it is a plain column, without parameters.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from django.db import models

from .column import INTEGERS, MAX_PLACES, TEXTS, Column

TOGETHER: Final = {
    ",": "string_agg({}, ',' ORDER BY pk)",
    "\n": "string_agg({}, E'\\n' ORDER BY pk)",
}


def _plain(field: Any, name: str) -> Column:
    return Column(f"{name}::text")


def _boolean(field: Any, name: str) -> Column:
    return Column(f"CASE {name} WHEN true THEN 'true' WHEN false THEN 'false' END")


def _text(field: Any, name: str) -> Column:
    return Column(f"to_json({name})::text", separator="\n")


def _date(field: Any, name: str) -> Column:
    years = f"{name} BETWEEN '0001-01-01' AND '9999-12-31'"
    return Column(f"CASE WHEN {years} THEN '\"' || to_char({name}, 'YYYY-MM-DD') || '\"' END")


def _datetime(field: Any, name: str) -> Column:
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


def _decimal(field: Any, name: str) -> Column:
    return Column(f"CASE WHEN scale({name}) <= {MAX_PLACES} THEN '\"' || {name} || '\"' END")


def _in_quotes(field: Any, name: str) -> Column:
    return Column(f"'\"' || {name} || '\"'")


WRITERS: Final[Mapping[Any, Callable[[Any, str], Column]]] = {
    **dict.fromkeys(INTEGERS, _plain),
    **dict.fromkeys(TEXTS, _text),
    models.BooleanField: _boolean,
    models.DateField: _date,
    models.DateTimeField: _datetime,
    models.DecimalField: _decimal,
    models.UUIDField: _in_quotes,
}
