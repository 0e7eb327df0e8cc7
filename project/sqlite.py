"""SQLite's file, for its owner alone."""

import os
import sqlite3
import tempfile
from contextlib import suppress
from typing import Any


class OwnerOnlyConnection(sqlite3.Connection):
    """A connection that makes a missing file with mode 0600, where SQLite would take 0644.

    SQLite gives the files beside it (-wal, -shm) the same permissions.
    """

    def __init__(self, database: str, *args: Any, **kwargs: Any) -> None:
        if not str(database).startswith(("file:", ":memory:")) and not os.path.exists(database):
            with suppress(OSError):  # SQLite says what is wrong
                _make(database)
        super().__init__(database, *args, **kwargs)


def _make(path: str) -> None:
    # Under another name, because closing a file ends all locks that this process has on it (POSIX,
    # fcntl), those of SQLite's other connections too: another process would then delete their log.
    file, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".")  # 0600
    os.close(file)
    try:
        os.link(temporary, path)  # unless somebody has made it meanwhile
    finally:
        os.unlink(temporary)
