"""For tests of streams over real sockets: a site with the views, its table, and what it holds."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psycopg

from ..server.support import Client
from .databases import ON_POSTGRESQL
from .sites import site_for_module

MIB = 2**20
_SQLITE = """
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    INSERT INTO demo_item (name, price, created, uuid)
    SELECT 'Item ' || i, (i * 7919 % 99900) / 100.0, '2025-01-01 00:00:00', printf('%032x', i)
    FROM n
"""
_POSTGRESQL = """
    INSERT INTO demo_item (name, price, created, uuid)
    SELECT 'Item ' || i, (i * 7919 %% 99900) / 100.0, '2025-01-01 00:00:00+00',
           lpad(to_hex(i), 32, '0')::uuid
    FROM generate_series(1, %s) AS i
"""


@contextlib.contextmanager
def streaming_site(
    template: Mapping[str, str],
    constants: Mapping[str, Any] | None = None,
    *arguments: str,
    **more: str,
) -> Iterator[SimpleNamespace]:
    """A served site with the tests' streaming views; `files` is its FILES_DIR."""
    settings = {
        "DJANGO_SETTINGS_MODULE": "tests.support.site.stream_settings",
        "ALLOWED_HOSTS": "127.0.0.1,localhost,test",
        **more,
    }
    with site_for_module(template, constants or {}, *arguments, **settings) as site:
        site.files = Path(site.env["DATA_DIR"], "files")
        site.files.mkdir()
        site.pid = site.server.worker_pids()[0]
        # The first request imports the URLs and all views: that is not what a test measures which
        # happens to come first.
        assert httpx.get(f"{site.url}/healthz", timeout=20).status_code == 200
        yield site


def fill_items(site: Any, count: int) -> None:
    """So many items, with consecutive ids from 1."""
    url = site.env["DATABASE_URL"]
    if ON_POSTGRESQL:
        with psycopg.connect(url) as connection:
            connection.execute(_POSTGRESQL, [count])
        return
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute(_SQLITE, [count])
        connection.commit()


def client(site: Any, **options: Any) -> Client:
    """A socket that reads when it is told."""
    return Client(("127.0.0.1", site.server.port), **options)


def memory(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def open_files(pid: int, part: str) -> int:
    """Return how many of a process's descriptors are of files with this in their path."""
    folder, count = f"/proc/{pid}/fd", 0
    for number in os.listdir(folder):
        with contextlib.suppress(OSError):  # closed since
            count += part in os.readlink(f"{folder}/{number}")
    return count


def open_transactions(site: Any) -> int:
    """Connections of the site's database that are in a transaction, on PostgreSQL."""
    with psycopg.connect(site.env["DATABASE_URL"], autocommit=True) as connection:
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' "  # not autovacuum, which comes when it likes
            "AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
        )
        row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])


def read_away(connection: Client, size: int) -> int:
    """Read and forget up to `size` bytes; how many came before the end."""
    buffer = bytearray(MIB)
    left = size - len(connection.buffer)
    connection.buffer.clear()
    while left > 0 and (count := connection.sock.recv_into(buffer, min(left, MIB))):
        left -= count
    return size - left
