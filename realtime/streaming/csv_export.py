"""A table as CSV, made while it is sent."""

import csv
import io
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from operator import itemgetter
from typing import Any, Final

from django.db.models import QuerySet

from .json_columns import to_utf8
from .pages import row_pages
from .response import DownloadResponse

# What a spreadsheet takes for the beginning of a formula (OWASP, "CSV Injection").
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_BOM: Final = "\ufeff".encode()


class CSVResponse(DownloadResponse):
    """`fields` of a queryset's rows as CSV (RFC 4180), UTF-8, with the fields' names on top.

    `escape_formulas` puts a ' before text that a spreadsheet would execute; turn it on where
    people other than you have written the text. `bom` tells Excel that this is UTF-8.
    """

    stream_content_type = "text/csv; charset=utf-8"

    def __init__(
        self,
        source: QuerySet[Any],
        *,
        fields: Sequence[str],
        filename: str = "export.csv",
        escape_formulas: bool = False,
        bom: bool = False,
        **kwargs: Any,
    ) -> None:
        if not isinstance(source, QuerySet):
            raise TypeError(
                f"CSVResponse needs a queryset, got {type(source).__name__}: for other sources "
                "give a StreamResponse what `encode_csv` makes of lists of rows."
            )
        top = (_BOM if bom else b"") + encode_csv([fields], len(fields))
        pages = row_pages(
            source, lambda rows: encode_csv(rows, len(fields), escape_formulas), fields=fields
        )
        super().__init__(_prepend(top, pages), filename, **kwargs)


async def _prepend(top: bytes, pages: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(pages):
        yield top
        async for page in pages:
            yield page


def encode_csv(rows: Iterable[Sequence[Any]], width: int, escape_formulas: bool = False) -> bytes:
    """Return the first `width` values of each row."""
    buffer = io.StringIO(newline="")
    cut = itemgetter(slice(width))
    values: Iterable[Sequence[Any]] = map(cut, rows)
    if escape_formulas:
        values = ([_harmless(value) for value in row] for row in values)
    csv.writer(buffer).writerows(values)
    return to_utf8(buffer.getvalue())


def _harmless(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return "'" + value
    return value
