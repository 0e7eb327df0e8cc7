"""The site that is broken: two workers behind proxies to their database and to Valkey."""

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ..support.databases import ON_POSTGRESQL, new_database_url
from ..support.servers import SiteServer, Valkey, prepare_site
from .proxy import Proxy

# A thread that is started without memory may never report back, and hold the event loop: such a
# worker is replaced, and within the time that a recovery may take.
TIMEOUT: Final = ("--worker-timeout", "6")
CLOCK: Final = Path(__file__).parent / "clock"  # what lets the workers' clocks be set


@dataclass
class Site:
    """What the faults act on."""

    server: SiteServer
    valkey: Valkey
    redis: Proxy
    database: Proxy | None  # SQLite has none
    database_url: str  # past the proxy
    clock: Path  # a file with the seconds by which the workers' clocks are wrong

    def set_clock(self, seconds: float) -> None:
        """Set the wall clocks of the site's processes wrong by so much."""
        self.clock.write_text(str(seconds))

    def heal(self) -> None:
        """End every fault of the proxies, and set the clocks right."""
        self.set_clock(0)
        self.redis.heal()
        if self.database is not None:
            self.database.heal()

    def connect(self) -> Any:
        """Return a connection of its own to the database, in no transaction."""
        if ON_POSTGRESQL:
            return closing(psycopg.connect(self.database_url, autocommit=True))
        path = self.database_url.removeprefix("sqlite:///")
        return closing(sqlite3.connect(path, timeout=30, isolation_level=None))

    def execute(self, sql: str, parameters: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement past the proxy; its rows. Parameters are written as %s."""
        with self.connect() as connection:
            mark = "%s" if ON_POSTGRESQL else "?"
            cursor = connection.execute(sql.replace("%s", mark), tuple(parameters))
            return list(cursor.fetchall()) if cursor.description else []


@asynccontextmanager
async def broken_site() -> AsyncIterator[Site]:
    """Start everything, and stop it at the end. What its log says stands in `server.log`."""
    database_url = new_database_url()
    valkey = await asyncio.to_thread(Valkey)
    with tempfile.TemporaryDirectory(prefix="realtime-chaos-") as data_dir:
        env = await asyncio.to_thread(prepare_site, database_url, data_dir)
        clock = Path(data_dir, "clock")
        path = os.pathsep.join([str(CLOCK), os.environ.get("PYTHONPATH", "")])
        env |= {"PYTHONPATH": path, "CHAOS_CLOCK": str(clock)}
        connect = partial(asyncio.open_connection, "127.0.0.1", valkey.port)
        try:
            async with Proxy(connect) as redis:
                env["REDIS_URL"] = f"redis://127.0.0.1:{redis.port}/0"
                if not ON_POSTGRESQL:
                    async with _serving(env) as server:
                        yield Site(server, valkey, redis, None, database_url, clock)
                    return
                url = conninfo_to_dict(database_url)
                socket = f"{url['host']}/.s.PGSQL.{url.get('port', 5432)}"
                async with Proxy(partial(asyncio.open_unix_connection, socket)) as database:
                    name = f"{url['user']}@127.0.0.1:{database.port}/{url['dbname']}"
                    env["DATABASE_URL"] = f"postgresql://{name}"
                    async with _serving(env) as server:
                        yield Site(server, valkey, redis, database, database_url, clock)
        finally:
            await asyncio.to_thread(valkey.stop)


@asynccontextmanager
async def _serving(env: dict[str, str]) -> AsyncIterator[SiteServer]:
    server = await asyncio.to_thread(SiteServer, env, "--workers", "2", *TIMEOUT)
    server.expected.append("")  # each fault has its errors: whatever is logged is expected
    try:
        yield server
    finally:
        with suppress(AssertionError):  # what hangs has been reported as such
            await asyncio.to_thread(server.stop)
