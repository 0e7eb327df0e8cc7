"""The site that is broken: two workers behind proxies to their database, bus and log."""

import asyncio
import json
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import django
import psycopg
from django.conf import settings as django_settings
from psycopg.conninfo import conninfo_to_dict

from benchmarks.compare import check_out

from ..support.brokers import BROKERS, Broker
from ..support.databases import ON_POSTGRESQL, new_database_url
from ..support.servers import ROOT, SiteServer, Valkey, prepare_site
from .proxy import Proxy

# A worker is replaced within the time that a recovery may take: where its event loop is held it is
# killed a quarter later than the first says, and a second; where it gets no more memory, the second
# after another is ready.
TIMEOUTS: Final = ("--worker-timeout", "4", "--memory-grace", "2")
INSIDE: Final = Path(__file__).parent / "inside"  # what each process of the site imports first


@dataclass
class Site:
    """What the faults act on."""

    server: SiteServer
    broker: Broker  # of the bus
    bus: Proxy | None  # that of the database is the bus's too where it is PostgreSQL
    database: Proxy | None  # SQLite has none
    database_url: str  # past the proxy
    clock: Path  # a file with the seconds by which the workers' clocks are wrong
    code: Path  # a file with the folder whose code the next worker runs
    releases: Sequence[Path]  # the folders there are: the one that runs now is first
    redis: Valkey | None = None  # with the log, if it is there
    log: Proxy | None = None  # before that
    forgotten: dict[str, set[str]] = field(default_factory=dict)  # data by topic: see set_back()

    def set_clock(self, seconds: float) -> None:
        """Set the wall clocks of the site's processes wrong by so much."""
        self.clock.write_text(str(seconds))

    def change_release(self) -> None:
        """Have each worker that is started from now on run the other release."""
        self.releases = self.releases[::-1]
        self.code.write_text(str(self.releases[0]))

    def heal(self) -> None:
        """End every fault of the proxies, and set the clocks right."""
        self.set_clock(0)
        for proxy in (self.bus, self.database, self.log):
            if proxy is not None:
                proxy.heal()

    def events(self, topic: str) -> list[tuple[str, str]]:
        """Return the id and data of each event that is stored, in order, past the proxies."""
        if self.redis is not None:
            return read_all(self.redis.url, topic)
        rows = self.execute(
            'SELECT topic.epoch, topic.head, event."offset", event.data FROM realtime_topic topic '
            "JOIN realtime_event event ON event.topic_id = topic.id WHERE topic.name = %s "
            'ORDER BY event."offset"',
            [topic],
        )
        numbers = list(range(1, len(rows) + 1))
        assert [row[2] for row in rows] == numbers, f"{topic}: offsets have gaps"
        assert not rows or rows[-1][1] == len(rows), f"{topic}: the head is {rows[-1][1]}"
        return [(f"{epoch}-{offset}", json.loads(data)) for epoch, _, offset, data in rows]

    def set_back(self, count: int) -> None:
        """Take the newest events away from each topic, and remember them as `forgotten`."""
        with self.connect() as connection:
            connection.execute("BEGIN" if ON_POSTGRESQL else "BEGIN IMMEDIATE")
            lock = "FOR UPDATE" if ON_POSTGRESQL else ""
            select = f"SELECT id, name FROM realtime_topic ORDER BY name {lock}"
            names = dict(connection.execute(select).fetchall())
            # Not those that come meanwhile: each statement would see another part of them.
            newest = max(names, default=0)
            lost = (
                "SELECT event.id FROM realtime_event event JOIN realtime_topic topic "
                f"ON event.topic_id = topic.id WHERE topic.id <= {newest} "
                f'AND event."offset" > topic.head - {count}'
            )
            rows = connection.execute(
                f"DELETE FROM realtime_event WHERE id IN ({lost}) RETURNING topic_id, data"
            ).fetchall()
            connection.execute(
                "UPDATE realtime_topic SET head = "
                f"CASE WHEN head > {count} THEN head - {count} ELSE 0 END WHERE id <= {newest}"
            )
            try:
                connection.execute("COMMIT")
            finally:  # also where nobody knows whether it was made
                for topic_id, data in rows:
                    self.forgotten.setdefault(names[topic_id], set()).add(json.loads(data))

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
async def broken_site(bus: str, log: str, before: str | None = None) -> AsyncIterator[Site]:
    """Start everything, and stop it at the end. What its log says stands in `server.log`.

    With a commit `before`, all processes run that at first, on the tables of today.
    """
    database_url = new_database_url()
    async with AsyncExitStack() as stack:
        data_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="realtime-chaos-"))
        env = await asyncio.to_thread(prepare_site, database_url, data_dir)
        clock, code = Path(data_dir, "clock"), Path(data_dir, "code")
        releases = [ROOT]
        env |= {
            "PYTHONPATH": os.pathsep.join([str(INSIDE), str(ROOT)]),
            "PYTHONSAFEPATH": "1",  # the folder of manage.py is not searched first
            "CHAOS_CLOCK": str(clock),
            "CHAOS_CODE": str(code),
        }
        if before:
            releases.insert(0, Path(data_dir, "before"))
            check_out(before, releases[0])
            code.write_text(str(releases[0]))
        broker = await asyncio.to_thread(BROKERS[bus])
        stack.callback(broker.stop)
        env |= broker.env
        own = redis = before_log = database = None
        if bus != "postgres":
            own, env = await _put_before(broker.port, env, stack)
        if log == "redis":
            # What is acknowledged is on the disk, so nothing that is lost counts as a reset.
            options = {"appendonly": "yes", "appendfsync": "always"}
            redis = await asyncio.to_thread(partial(Valkey, Path(data_dir, "log"), **options))
            stack.callback(redis.stop)
            env |= {
                "EVENT_LOG": "redis",
                "REDIS_LOG_URL": redis.url,
                "REDIS_LOG_TRUST_RESTART": "1",
            }
            before_log, env = await _put_before(redis.port, env, stack)
        if ON_POSTGRESQL:
            url = conninfo_to_dict(database_url)
            socket = f"{url['host']}/.s.PGSQL.{url.get('port', 5432)}"
            connect = partial(asyncio.open_unix_connection, socket)
            database = await stack.enter_async_context(Proxy(connect))
            name = f"{url['user']}@127.0.0.1:{database.port}/{url['dbname']}"
            env["DATABASE_URL"] = f"postgresql://{name}"
        options = () if before else TIMEOUTS  # which a release before may not know
        server = await stack.enter_async_context(_serving(env, options, data_dir))
        yield Site(
            *(server, broker, own, database, database_url, clock, code, releases),
            *(redis, before_log),
        )


async def _put_before(
    port: int, env: dict[str, str], stack: AsyncExitStack
) -> tuple[Proxy, dict[str, str]]:
    """Start a proxy before a server; return it, and the environment with its port instead."""
    connect = partial(asyncio.open_connection, "127.0.0.1", port)
    proxy = await stack.enter_async_context(Proxy(connect))
    places = f"127.0.0.1:{port}", f"127.0.0.1:{proxy.port}"
    return proxy, {name: text.replace(*places) for name, text in env.items()}


def read_all(url: str, topic: str) -> list[tuple[str, str]]:
    """Return the id and data of each event of a topic in the log in Redis."""
    if not django_settings.configured:
        apps = ["django.contrib.auth", "django.contrib.contenttypes", "realtime"]
        django_settings.configure(INSTALLED_APPS=apps, REALTIME={"REDIS_LOG_URL": url})
        django.setup()
    from realtime.eventlog.redis.log import RedisLog
    from realtime.events.position import OLDEST

    async def read() -> list[tuple[str, str]]:
        log, position = RedisLog(), OLDEST
        found: list[tuple[str, str]] = []
        while page := (await log.read(topic, position, 1_000)).events:
            assert page[0].offset == len(found) + 1, f"{topic}: offsets have gaps"
            found += [(str(event.id), json.loads(event.data)) for event in page]
            position = page[-1].position
        return found

    return asyncio.run(read())


@asynccontextmanager
async def _serving(
    env: dict[str, str], options: Sequence[str], folder: str
) -> AsyncIterator[SiteServer]:
    # Daphne searches the folder that it is started in first, too: there is no code in this one.
    start = partial(SiteServer, env, "--workers", "2", *options, cwd=Path(folder))
    server = await asyncio.to_thread(start)
    server.expected.append("")  # each fault has its errors: whatever is logged is expected
    try:
        yield server
    finally:
        with suppress(AssertionError):  # what hangs has been reported as such
            await asyncio.to_thread(server.stop)
