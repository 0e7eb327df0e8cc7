"""`realtime.utils.threads`: the database work of a whole process in a few threads."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest
from asgiref.sync import SyncToAsync
from django.db import OperationalError, connection, connections
from django.test import override_settings

from realtime.eventlog.base import NewEvent
from realtime.eventlog.database import DatabaseLog
from realtime.models import Topic
from realtime.utils.threads import close_connections, in_database_thread, read_in_database_thread

from ..support.databases import ON_POSTGRESQL, postgresql_uri
from ..support.servers import ROOT, wait_until

pytestmark = pytest.mark.django_db(transaction=True)
postgresql_only = pytest.mark.skipif(not ON_POSTGRESQL, reason="there is no server to drop it")


@pytest.fixture(autouse=True)
def _fresh_threads():
    close_connections()
    yield
    close_connections()
    # These tests kill connections: asgiref's own thread must not be left with a dead one.
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()


def thread_name() -> str:
    return threading.current_thread().name


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("realtime-database")]


async def test_it_runs_elsewhere_and_gives_arguments_and_result():
    assert (await in_database_thread(thread_name)).startswith("realtime-database")
    assert await in_database_thread(lambda a, *, b: (a, b), 1, b=2) == (1, 2)
    assert await read_in_database_thread(lambda a, *, b: (a, b), 1, b=2) == (1, 2)


@pytest.mark.parametrize("run", [in_database_thread, read_in_database_thread])
async def test_what_it_raises_comes_back(run):
    with pytest.raises(ZeroDivisionError):
        await run(lambda: 1 / 0)


async def test_no_more_threads_than_the_setting_says():
    running, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2, timeout=10)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait()
        time.sleep(0.01)
        with lock:
            running -= 1

    with override_settings(REALTIME={"DATABASE_THREADS": 2}):
        await asyncio.gather(*(in_database_thread(work) for _ in range(10)))
    assert most == 2
    assert len(our_threads()) == 2


async def test_a_connection_is_kept_for_the_next():
    def connected() -> int:
        Topic.objects.exists()
        return id(connection.connection)

    with override_settings(REALTIME={"DATABASE_THREADS": 1}):
        first = await in_database_thread(connected)
        assert await in_database_thread(connected) == first
        with pytest.raises(ZeroDivisionError):
            await in_database_thread(lambda: 1 / 0)
        assert await in_database_thread(connected) == first, "not an error of the database"


async def test_a_connection_is_dropped_after_an_error_of_the_database():
    def fail() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT nonsense")

    with override_settings(REALTIME={"DATABASE_THREADS": 1}):
        with pytest.raises(Exception, match="nonsense"):
            await in_database_thread(fail)
        assert await in_database_thread(lambda: connection.connection) is None


@pytest.mark.parametrize(("run", "calls"), [(in_database_thread, 1), (read_in_database_thread, 2)])
async def test_only_a_read_is_tried_again_and_once(run, calls):
    called = []

    def fail() -> None:
        called.append(1)
        raise OperationalError("server closed the connection unexpectedly")

    with pytest.raises(OperationalError):
        await run(fail)
    assert len(called) == calls


def test_threads_end_and_new_ones_start():
    asyncio.run(in_database_thread(thread_name))
    assert our_threads()
    close_connections()
    assert our_threads() == []
    close_connections()  # a second time: nothing to do
    asyncio.run(in_database_thread(thread_name))


def test_close_waits_for_who_is_at_work():
    """Even the connection of a thread that is busy is closed by that thread."""
    started, closed = threading.Event(), []

    class Watched:
        """Stands for a connection: remembers which thread let go of it."""

        def close_all(self) -> None:
            closed.append(thread_name())
            connections.close_all()

    def work() -> str:
        started.set()
        time.sleep(0.1)
        return thread_name()

    async def main() -> str:
        busy = asyncio.ensure_future(in_database_thread(work))
        await asyncio.to_thread(started.wait, 5)
        await asyncio.to_thread(close_connections)
        return await busy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("realtime.utils.threads.connections", Watched())
        name = asyncio.run(main())
    assert name in closed
    assert len(closed) == len(set(closed))


# -- with a server that can drop connections


def backends() -> list[int]:
    """The server's processes that serve this database, but for the one that is asked."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"  # not autovacuum, which comes when it likes
        )
        return [pid for (pid,) in cursor.fetchall()]


def kill(pids: list[int]) -> None:
    with connection.cursor() as cursor:
        for pid in pids:
            cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
    wait_until(lambda: not set(backends()) & set(pids), what="the end of the backends")


def without_pool() -> None:
    if connection.pool is not None:
        connection.close_pool()


async def connect_all() -> None:
    """Every shared thread has a connection."""
    barrier = threading.Barrier(4)

    def connected() -> None:
        Topic.objects.exists()
        barrier.wait(10)

    await asyncio.gather(*(in_database_thread(connected) for _ in range(4)))


@postgresql_only
def test_reads_survive_a_server_that_drops_every_connection():
    DatabaseLog().append([NewEvent("a", "message", "1")])
    asyncio.run(connect_all())
    killed = backends()
    assert len(killed) >= 4
    kill(killed)

    async def read_all() -> list[int]:
        heads = await asyncio.gather(*(DatabaseLog().heads(["a"]) for _ in range(20)))
        return [head["a"].offset for head in heads]

    assert asyncio.run(read_all()) == [1] * 20


@postgresql_only
def test_reads_survive_when_what_lay_idle_in_the_pool_was_dropped():
    DatabaseLog().append([NewEvent("a", "message", "1")])
    asyncio.run(connect_all())
    close_connections()  # into the pool
    kill(backends())

    async def read_all() -> list[int]:
        heads = await asyncio.gather(*(DatabaseLog().heads(["a"]) for _ in range(20)))
        return [head["a"].offset for head in heads]

    assert asyncio.run(read_all()) == [1] * 20


@postgresql_only
def test_an_append_on_a_dropped_connection_is_made_once_more_on_a_new_one():
    asyncio.run(connect_all())
    kill(backends())

    async def publish() -> list[int]:
        append = DatabaseLog().aappend
        return [(await append(NewEvent("a", "message", "1"))).offset for _ in range(12)]

    assert asyncio.run(publish()) == list(range(1, 13))


@postgresql_only
def test_close_connections_leaves_none():
    without_pool()  # so that new ones are made, not an earlier test's taken
    before = set(backends())  # an earlier test's, in threads that are not these
    asyncio.run(connect_all())
    held = set(backends()) - before
    assert held
    close_connections()
    without_pool()
    wait_until(lambda: not set(backends()) & held, what="the end of the connections")
    assert postgresql_uri()


LAZY = """
import asyncio, os, django
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
django.setup()
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_started
from django.db import close_old_connections, reset_queries
from realtime.server import lifespan as startup
from realtime.server import request_threads as threads

def others(**kwargs):
    pass

request_started.connect(others)
before = request_started._live_receivers(ASGIHandler)[0]
assert {reset_queries, close_old_connections, others} <= set(before)
for _ in range(2):  # once is enough, and twice no harm
    startup.run()
assert request_started._live_receivers(ASGIHandler)[0] == [others], "the site's own stay"
assert threads.BEFORE_USE == [reset_queries, close_old_connections]
print("fine")
"""


def test_in_a_server_threads_are_prepared_when_they_are_used():
    done = subprocess.run([sys.executable, "-c", LAZY], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr


FORKED = """
import asyncio, os, sys, django
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
django.setup()
from realtime.utils.threads import in_database_thread

def work():
    return asyncio.run(asyncio.wait_for(in_database_thread(os.getpid), 5))

assert work() == os.getpid()
pid = os.fork()
if not pid:
    os._exit(0 if work() == os.getpid() else 1)
_, status = os.waitpid(pid, 0)
assert work() == os.getpid()
print(os.waitstatus_to_exitcode(status))
"""


def test_a_process_that_was_forked_off_has_threads_of_its_own():
    """Servers that fork after the app is loaded, and task queues: theirs are not the parent's."""
    done = subprocess.run([sys.executable, "-c", FORKED], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "0\n", done.stderr
