"""`realtime.utils.postgresql`: a server that no longer answers, behind a proxy that swallows."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool

from realtime import WatchedConnection

from ..chaos.proxy import Proxy
from ..support.databases import ON_POSTGRESQL, postgresql_uri

pytestmark = pytest.mark.skipif(not ON_POSTGRESQL, reason="there is no server to fall silent")
LIMIT = 1.0
SHORT = 30.0  # less than for ever, on a busy machine too


@pytest.fixture(autouse=True)
def _limit(settings: Any) -> None:
    settings.REALTIME = {"DATABASE_ANSWER_SECONDS": LIMIT}


@pytest.fixture
def proxy() -> Iterator["Proxied"]:
    with asyncio.Runner() as runner:
        proxied = Proxied(runner)
        yield proxied
        runner.run(proxied.close())


class Proxied:
    """PostgreSQL behind a proxy; `run` lets both work while a function is called in a thread."""

    def __init__(self, runner: asyncio.Runner) -> None:
        where = conninfo_to_dict(postgresql_uri())
        path = f"{where['host']}/.s.PGSQL.{where.get('port', 5432)}"

        async def connect() -> Any:
            return await asyncio.open_unix_connection(path)

        self.runner = runner
        self.wire = Proxy(connect)
        runner.run(self.wire.__aenter__())
        self.where = {"host": "127.0.0.1", "port": self.wire.port, "user": where["user"]}
        self.where |= {"dbname": "postgres", "autocommit": True}
        self.pool: ConnectionPool[WatchedConnection] = ConnectionPool(
            connection_class=WatchedConnection,
            kwargs=self.where,
            check=ConnectionPool.check_connection,
            min_size=0,
            max_size=4,
            timeout=SHORT,
            open=True,
        )

    def run(self, function: Any, *args: Any) -> Any:
        return self.runner.run(self._run(function, *args))

    async def _run(self, function: Any, *args: Any) -> Any:
        return await asyncio.wait_for(asyncio.to_thread(function, *args), SHORT)

    async def close(self) -> None:
        await asyncio.to_thread(self.pool.close)
        await self.wire.__aexit__()


def count(connection: Any) -> Any:
    return connection.execute("SELECT 1").fetchone()[0]


@pytest.mark.parametrize("fault", [Proxy.silence, Proxy.half_open])
def test_a_silent_connection_breaks_and_its_pool_gives_those_that_work(
    proxy: Proxied, fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lent = [proxy.run(proxy.pool.getconn) for _ in range(4)]
    proxy.run(proxy.pool.putconn, lent[2])
    proxy.run(proxy.pool.putconn, lent[3])
    fault(proxy.wire)
    with pytest.raises(psycopg.OperationalError, match="did not answer"):
        proxy.run(count, lent[0])
    assert [connection.closed for connection in lent] == [True, False, True, True]
    assert lent[1].is_suspect
    proxy.run(proxy.pool.putconn, lent[0])
    new = proxy.run(proxy.pool.getconn)
    assert not new.is_suspect
    assert proxy.run(count, new) == 1
    assert len([text for text in caplog.messages if "does not work at it" in text]) == 1
    caplog.clear()
    lent[1].close()
    for connection in (new, lent[1]):
        proxy.run(proxy.pool.putconn, connection)


def test_after_a_restart_of_the_server_its_pool_gives_one_that_works_soon(
    proxy: Proxied,
) -> None:
    for connection in [proxy.run(proxy.pool.getconn) for _ in range(4)]:
        assert proxy.run(count, connection) == 1
        proxy.run(proxy.pool.putconn, connection)
    proxy.wire.cut()
    started = time.monotonic()
    new = proxy.run(proxy.pool.getconn)
    assert proxy.run(count, new) == 1
    # One pause of a second is psycopg's own, after the first; for all four it would be 15 s.
    assert time.monotonic() - started < 5, "it waited for those that are broken"
    proxy.run(proxy.pool.putconn, new)


def test_no_thread_closes_a_connection_that_another_uses(proxy: Proxied) -> None:
    """The other would go on in memory that is freed, which ends the process."""
    lent, idle = [proxy.run(proxy.pool.getconn) for _ in range(2)]
    proxy.run(proxy.pool.putconn, idle)
    proxy.wire.freeze()
    checking = threading.Thread(target=proxy.pool.check)
    checking.start()
    while idle.pgconn.transaction_status != TransactionStatus.ACTIVE:
        time.sleep(0.001)
    with pytest.raises(psycopg.OperationalError, match="did not answer"):
        lent._give_up()
    assert not idle.closed
    checking.join(SHORT)
    assert idle.closed
    proxy.wire.heal()
    proxy.run(proxy.pool.putconn, lent)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_was_forked_off_closes_nothing_of_its_parent(proxy: Proxied) -> None:
    idle, lent = [proxy.run(proxy.pool.getconn) for _ in range(2)]
    proxy.run(proxy.pool.putconn, idle)
    pid = os.fork()
    if pid == 0:
        lent._pool = None  # its threads are not here
        lent._suspect_others()
        os._exit(0)
    os.waitpid(pid, 0)
    assert proxy.run(count, idle) == 1
    proxy.run(proxy.pool.putconn, lent)


def test_a_server_that_answers_nobody_is_not_waited_for(
    proxy: Proxied, caplog: pytest.LogCaptureFixture
) -> None:
    with proxy.run(proxy.pool.getconn) as connection:
        proxy.wire.freeze()
        with pytest.raises(psycopg.OperationalError, match="did not answer"):
            proxy.run(count, connection)
    caplog.clear()
    proxy.wire.heal()
    proxy.run(proxy.pool.putconn, connection)


def test_what_takes_longer_is_left_alone(proxy: Proxied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime.utils.postgresql.PROBE_SECONDS", 10)  # on a busy machine
    connection = proxy.run(proxy.pool.getconn)
    proxy.run(connection.execute, "SELECT pg_sleep(2.5)")
    assert proxy.run(count, connection) == 1
    proxy.run(proxy.pool.putconn, connection)


def test_who_listens_for_notifications_may_wait(proxy: Proxied) -> None:
    connection = proxy.run(proxy.pool.getconn)
    proxy.run(connection.execute, "LISTEN news")
    assert proxy.run(lambda: list(connection.notifies(timeout=2.5))) == []
    assert proxy.run(count, connection) == 1
    proxy.run(proxy.pool.putconn, connection)


def test_without_a_limit_it_waits(proxy: Proxied, settings: Any) -> None:
    settings.REALTIME = {"DATABASE_ANSWER_SECONDS": None}
    connection = proxy.run(proxy.pool.getconn)
    proxy.wire.freeze()

    async def main() -> Any:
        counted = asyncio.ensure_future(asyncio.to_thread(count, connection))
        await asyncio.sleep(3 * LIMIT)
        assert not counted.done()
        proxy.wire.heal()
        return await counted

    assert proxy.runner.run(main()) == 1
    proxy.run(proxy.pool.putconn, connection)
