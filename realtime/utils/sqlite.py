"""Wait for SQLite's other writers for another time than `OPTIONS["timeout"]` says."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections


@contextmanager
def wait_at_most(alias: str, milliseconds: int) -> Iterator[None]:
    """Wait no longer than this for another writer; for databases with row locks do nothing.

    Raises OperationalError, as after any other time.
    """
    connection = connections[alias]
    if connection.vendor != "sqlite":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        (before,) = cursor.fetchone()
        cursor.execute(f"PRAGMA busy_timeout = {milliseconds}")
        try:
            yield
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {before}")
