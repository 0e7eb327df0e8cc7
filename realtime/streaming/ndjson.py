"""NDJSON: a line of JSON for each row or value, in constant memory, however many there are."""

import logging
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from functools import partial
from typing import Any, ClassVar

from django.db.models import QuerySet
from django.http import HttpRequest

from ..conf import settings
from ..exceptions import InvalidPosition
from ..utils.pump import chunked
from .json_columns import encode_lines, encode_rows, encode_value, to_utf8
from .pages import Instead, after_key, row_pages
from .response import StreamResponse
from .source_context import RequestVariables
from .sql_json import Lines

logger = logging.getLogger(__name__)
MAX_LIMIT = 2**63 - 1  # what a database can count to


class NDJSONResponse(StreamResponse):
    """A line for each row of a queryset, or for each value of an async iterable.

    Of a queryset, say what may be seen: `fields`, or `row`, a function that makes a JSON value of
    an instance, or `.values(...)`. `after` is a primary key, `limit` a number of rows.

    An error in the middle cuts the connection: a body that has its end is whole. With the setting
    UNWRITABLE_ROWS = "error", a row that can't be written is a line that says so.
    """

    stream_content_type = "application/x-ndjson"
    stream_headers: ClassVar[dict[str, str]] = {
        **StreamResponse.stream_headers,
        "X-Content-Type-Options": "nosniff",
    }

    def __init__(
        self,
        source: QuerySet[Any] | AsyncIterable[Any],
        *,
        fields: Sequence[str] | None = None,
        row: Callable[[Any], Any] | None = None,
        after: Any = None,
        limit: int | None = None,
        **kwargs: Any,
    ) -> None:
        self._row = row
        body: AsyncIterable[bytes]
        if isinstance(source, QuerySet):
            if after is not None:
                source = after_key(source, after)
            body = self._pages(source, fields, limit)
        elif fields is not None or after is not None or limit is not None:
            raise TypeError("`fields`, `after` and `limit` are for querysets; cut the source.")
        else:
            self.check_source(source)
            body = batches(source, self._line if _instead() is None else self._line_or_error)
        super().__init__(body, **kwargs)

    def _line(self, value: Any) -> bytes:
        value = value if self._row is None else self._row(value)
        return to_utf8(encode_value(value) + "\n")

    def _line_or_error(self, value: Any) -> bytes:
        try:
            return self._line(value)
        except Exception as error:
            logger.warning("A value of a source can't be written: %r", error)
            return error_line(None)

    def _pages(
        self, queryset: QuerySet[Any], fields: Sequence[str] | None, limit: int | None
    ) -> AsyncGenerator[bytes, None]:
        if self._row is not None:
            if fields is not None:
                raise TypeError("Give `fields` or `row`, not both.")
            row = self._row
            return row_pages(
                queryset, lambda page: encode_lines(map(row, page)), limit=limit, instead=_instead()
            )
        if fields is None:
            if queryset._fields is None:  # type: ignore[attr-defined]
                raise TypeError(
                    "NDJSONResponse sends what it is told to: name `fields`, or give a queryset "
                    "with .values('id', 'name'), or a function `row` that makes a JSON value of "
                    "an instance."
                )
            query = queryset.query
            fields = (*query.extra_select, *query.values_select, *query.annotation_select)
        encode = partial(encode_rows, fields)
        lines = Lines.of(queryset, fields)
        fetch = None if lines is None else lines.fetch
        return row_pages(
            queryset, encode, fields=fields, limit=limit, fetch=fetch, instead=_instead()
        )


def error_line(key: Any) -> bytes:
    """Return what stands for a row that can't be written, where UNWRITABLE_ROWS says so."""
    error = {"key": key, "detail": "This row can't be written as JSON."}
    return to_utf8(encode_value({"error": error}) + "\n")


def _instead() -> Instead | None:
    return error_line if settings.UNWRITABLE_ROWS == "error" else None


def after_and_limit(request: HttpRequest) -> dict[str, Any]:
    """Return `?after=` and `?limit=` as `NDJSONResponse` takes them; refuse a bad limit."""
    limit = request.GET.get("limit")
    if limit is not None and not (limit.isascii() and limit.isdigit() and len(limit) <= 19):
        raise InvalidPosition(f"limit={limit[:80]!r}: a number of rows, as limit=100.")
    return {
        "after": request.GET.get("after"),
        "limit": None if limit is None else min(int(limit), MAX_LIMIT),
    }


def batches(
    source: AsyncIterable[Any], line: Callable[[Any], bytes]
) -> AsyncGenerator[bytes, None]:
    """Yield the lines of `source` in chunks.

    Of `BATCH_BYTES` while it is fast, and at the latest `BATCH_SECONDS` after the last chunk while
    it is not.
    """
    most, seconds = settings.BATCH_BYTES, settings.BATCH_SECONDS
    enter = RequestVariables().enter
    return chunked(source, b"".join, most, seconds, convert=line, enter=enter)
