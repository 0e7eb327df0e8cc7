"""A queryset read in pages that threads encode, so that a client may take its time.

Two ways. In the order of the primary key, each page is a query of its own that goes on after the
last key: between two pages there is no cursor, no transaction, no connection and no thread, and a
client may stall for hours. Any other order needs a cursor: on PostgreSQL one of the server's, on a
connection of its own, which goes back when the client leaves or takes nothing for `CURSOR_SECONDS`.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, Final, NamedTuple

from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import QuerySet

from ..conf import settings
from ..exceptions import InvalidPosition, RealtimeError
from ..utils.aio import PerLoop
from ..utils.threads import TRANSFER

FIRST_ROWS: Final = 100  # the first page: soon there, and a look at how large rows are
Encode = Callable[[list[Any]], bytes]
Instead = Callable[[Any], bytes]  # of the key of a row that can't be written (None: not known)
logger = logging.getLogger(__name__)


class Page(NamedTuple):
    """Some rows, encoded: how many they are, and the key of the last one."""

    data: bytes
    rows: int
    last: Any


Fetch = Callable[[Any, int], Page | None]  # of the key before it (None: none), and a number of rows


class TooSlow(RealtimeError):
    """The client took nothing for `CURSOR_SECONDS`: its cursor is closed, its stream cut."""

    code = "too_slow"


def in_key_order(queryset: QuerySet[Any]) -> bool:
    """Whether its pages can be found by the primary key, so that no cursor is needed."""
    query, meta = queryset.query, queryset.model._meta
    order = query.order_by
    if not order and query.default_ordering:
        order = tuple(meta.ordering or ())
    simple = not (
        query.is_sliced
        or query.distinct
        or query.combinator
        or query.group_by
        or query.extra_order_by
        or not query.standard_ordering
        or len(getattr(meta, "pk_fields", (meta.pk,))) != 1
    )
    assert meta.pk is not None
    return simple and order in ((), ("pk",), (meta.pk.name,))


def after_key(queryset: QuerySet[Any], after: Any) -> QuerySet[Any]:
    """Those rows whose primary key is greater; `InvalidPosition` for what can't be one."""
    if not in_key_order(queryset):
        raise TypeError("`after` is a primary key: order the queryset by it.")
    pk = queryset.model._meta.pk
    assert pk is not None
    try:
        return queryset.filter(pk__gt=pk.to_python(after))
    except (ValidationError, ValueError, TypeError):
        raise InvalidPosition(f"{str(after)[:80]!r} is not the key of a row.") from None


def row_pages(
    queryset: QuerySet[Any],
    encode: Encode,
    *,
    fields: Sequence[str] | None = None,
    limit: int | None = None,
    fetch: Fetch | None = None,
    instead: Instead | None = None,
) -> AsyncGenerator[bytes, None]:
    """Return the encoded pages of the queryset's rows.

    Tuples of `fields`, or without them instances.

    `encode` runs in a thread, and may get a tuple with one value more, which is the key. Where
    pages are found by their keys, `fetch` comes first: it gets a page as it is, or None. `instead`
    makes what stands for a row that can't be read or encoded; without it such a row is an error.
    """
    if in_key_order(queryset):
        return _by_key(queryset, encode, fields, limit, fetch, instead)
    if fields is not None:
        queryset = queryset.values_list(*fields)
    if instead is not None:
        encode = _each_or(instead, encode)
    return _by_cursor(queryset if limit is None else queryset[:limit], encode)


class _Size:
    """How many rows the next page has: as many as fill `PAGE_BYTES`, judged by the last page."""

    def __init__(self) -> None:
        self.rows = min(FIRST_ROWS, settings.PAGE_ROWS)

    def learn(self, rows: int, size: int) -> None:
        fitting = settings.PAGE_BYTES * rows // max(1, size)
        self.rows = max(1, min(settings.PAGE_ROWS, fitting, self.rows * 8))


async def _by_key(
    queryset: QuerySet[Any],
    encode: Encode,
    fields: Sequence[str] | None,
    limit: int | None,
    fetch: Fetch | None,
    instead: Instead | None,
) -> AsyncGenerator[bytes, None]:
    queryset = queryset.order_by("pk")

    def read(last: Any, count: int) -> Page:
        page = None if fetch is None else fetch(last, count)
        if page is not None:
            return page
        rest = queryset if last is None else queryset.filter(pk__gt=last)
        some = rest if fields is None else rest.values_list(*fields, "pk")
        try:
            rows = list(some[:count])
            data = encode(rows) if rows else b""
        except Exception as error:
            if instead is not None:
                return _row_by_row(rest[:count], some, encode, instead)
            if (key := _unreadable(rest[:count], some, encode)) is not None:
                error.add_note(f"The row of {queryset.model._meta.label} with the key {key!r}.")
            raise
        if not rows:
            return Page(b"", 0, last)
        return Page(data, len(rows), rows[-1].pk if fields is None else rows[-1][-1])

    size, last, left = _Size(), None, limit
    while left is None or left > 0:
        wanted = size.rows if left is None else min(size.rows, left)
        page, count, last = await TRANSFER.run_twice(read, last, wanted)
        if page:
            yield page
        if count < wanted:
            return
        size.learn(count, len(page))
        left = None if left is None else left - count


def _unreadable(rows: QuerySet[Any], some: QuerySet[Any], encode: Encode) -> Any:
    """Return the key of the first row that can't be read or encoded; None if none is to blame."""
    with suppress(Exception):  # where the database is gone, no row is
        for key in list(rows.values_list("pk", flat=True)):
            try:
                encode(list(some.filter(pk=key)))
            except Exception:
                return key
    return None


def _row_by_row(rows: QuerySet[Any], some: QuerySet[Any], encode: Encode, instead: Instead) -> Page:
    """Return a page of which rows can't be read or encoded."""
    keys, parts = list(rows.values_list("pk", flat=True)), []
    for key in keys:
        try:
            parts.append(encode(list(some.filter(pk=key))))
        except Exception as error:
            if not connections[rows.db].is_usable():
                raise  # it is the database's fault, not the row's
            _log_unwritable(rows.model._meta.label, key, error)
            parts.append(instead(key))
    return Page(b"".join(parts), len(keys), keys[-1])


def _each_or(instead: Instead, encode: Encode) -> Encode:
    def write(rows: list[Any]) -> bytes:
        try:
            return encode(rows)
        except Exception as error:
            if len(rows) > 1:
                return b"".join([write([row]) for row in rows])
            key = getattr(rows[0], "pk", None)  # a tuple of fields has none
            _log_unwritable(type(rows[0]).__name__, key, error)
            return instead(key)

    return write


def _log_unwritable(kind: str, key: Any, error: Exception) -> None:
    logger.warning("The row of %s with the key %r can't be written: %r", kind, key, error)


async def _by_cursor(queryset: QuerySet[Any], encode: Encode) -> AsyncGenerator[bytes, None]:
    loop, size = asyncio.get_running_loop(), _Size()
    turns = _turns.get()
    await turns.acquire()
    cursor = _Cursor(queryset)

    def let_go() -> None:
        if not cursor.is_given_up:
            cursor.is_given_up = True
            turns.release()
            TRANSFER.submit(cursor.close)

    try:
        while True:
            page, count = await TRANSFER.run(cursor.read, encode, size.rows)
            if page:
                timer = loop.call_later(settings.CURSOR_SECONDS, let_go)
                yield page
                timer.cancel()
            if count < size.rows:
                return
            size.learn(count, len(page))
    finally:
        let_go()


_turns: Final = PerLoop(lambda: asyncio.Semaphore(settings.STREAM_CURSORS))


class _Cursor:
    """A queryset's iterator on a connection that no thread owns; one thread at a time uses it."""

    def __init__(self, queryset: QuerySet[Any]) -> None:
        self._queryset = queryset
        self._lock = threading.Lock()
        self._connection: Any = None
        self._rows: Iterator[Any] | None = None
        self._is_closed = False
        self.is_given_up = False

    def read(self, encode: Encode, count: int) -> tuple[bytes, int]:
        """Return the next rows, encoded, and how many they are."""
        with self._lock:
            if self.is_given_up:
                raise TooSlow(
                    f"The client took nothing for {settings.CURSOR_SECONDS} s, which is as long as "
                    "its cursor is kept (CURSOR_SECONDS). Order by the primary key for more time."
                )
            with self._connected():
                return self._read(encode, count)

    def close(self) -> None:
        """Close the cursor, and give its connection back."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            if self._connection is not None:
                with self._connected():
                    self._end()

    def _read(self, encode: Encode, count: int) -> tuple[bytes, int]:
        if self._rows is None:
            # A cursor of this transaction: one WITH HOLD would copy its rows to disk first.
            self._connection.set_autocommit(False)
            self._rows = self._queryset.iterator(chunk_size=settings.PAGE_ROWS)
        page = list(islice(self._rows, count))
        return (encode(page) if page else b""), len(page)

    def _end(self) -> None:
        try:
            if self._rows is not None:
                self._rows.close()  # type: ignore[attr-defined]  # a generator
                self._connection.rollback()
        finally:
            self._connection.close()

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Let the ORM use the cursor's connection in this thread, until the block ends."""
        alias = self._queryset.db
        threads_own = connections[alias]
        if self._connection is None:
            self._connection = threads_own.copy()
            self._connection.inc_thread_sharing()
        connections[alias] = self._connection
        try:
            yield
        finally:
            connections[alias] = threads_own
