"""SQLite's file, for its owner alone."""

import os
import sqlite3
from contextlib import suppress
from typing import Any


class OwnerOnlyConnection(sqlite3.Connection):
    """A connection that makes a missing file with mode 0600, where SQLite would take 0644.

    SQLite gives the files beside it (-wal, -shm) the same permissions.
    """

    def __init__(self, database: str, *args: Any, **kwargs: Any) -> None:
        if not str(database).startswith(("file:", ":memory:")):
            with suppress(OSError):  # SQLite says what is wrong
                os.close(os.open(database, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))
        super().__init__(database, *args, **kwargs)
