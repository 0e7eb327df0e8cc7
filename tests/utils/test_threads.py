"""`realtime.utils.threads`: the database work of a whole process in a few threads."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest
from asgiref.sync import SyncToAsync
from django.contrib.auth.models import User
from django.db import DatabaseError, OperationalError, connection, connections
from django.test import override_settings
from psycopg_pool import PoolTimeout

from realtime.conf import Settings
from realtime.eventlog.base import NewEvent
from realtime.eventlog.database import DatabaseLog
from realtime.models import Topic
from realtime.utils.threads import DATABASE, TRANSFER

from ..support.databases import ON_POSTGRESQL, postgresql_uri
from ..support.servers import ROOT, wait_until

pytestmark = pytest.mark.django_db(transaction=True)
WATCH = "watch-realtime-database"
postgresql_only = pytest.mark.skipif(not ON_POSTGRESQL, reason="there is no server to drop it")


@pytest.fixture(autouse=True)
def _fresh_threads():
    DATABASE.close()
    yield
    DATABASE.close()
    # These tests kill connections: asgiref's own thread must not be left with a dead one.
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()


def thread_name() -> str:
    return threading.current_thread().name


def our_threads() -> list[str]:
    alive = [t.name for t in threading.enumerate() if t.is_alive()]
    return [name for name in alive if name.startswith("realtime-database")]


async def test_it_runs_elsewhere_and_gives_arguments_and_result():
    assert (await DATABASE.run(thread_name)).startswith("realtime-database")
    assert await DATABASE.run(lambda a, *, b: (a, b), 1, b=2) == (1, 2)
    assert await DATABASE.run_twice(lambda a, *, b: (a, b), 1, b=2) == (1, 2)


@pytest.mark.parametrize("run", [DATABASE.run, DATABASE.run_twice])
async def test_an_error_in_a_thread_is_raised_in_the_caller(run):
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
        await asyncio.gather(*(DATABASE.run(work) for _ in range(10)))
    assert most == 2
    assert len(our_threads()) == 2


async def test_the_free_thread_that_worked_last_has_the_next_call():
    both = threading.Barrier(2, timeout=20)

    goes, stays = threading.Event(), threading.Event()
    goes.set()

    def meet(done: threading.Event) -> str:
        both.wait()
        done.wait(20)
        return thread_name()

    async def asleep(count: int) -> None:
        while len(DATABASE._asleep) < count:
            await asyncio.sleep(0.001)

    with override_settings(REALTIME={"DATABASE_THREADS": 2}):
        calls = [asyncio.ensure_future(DATABASE.run(meet, done)) for done in (goes, stays)]
        await calls[0]
        await asleep(1)
        stays.set()
        last = await calls[1]
        for _ in range(4):
            await asleep(2)
            assert await DATABASE.run(thread_name) == last


async def test_a_connection_is_kept_for_the_next():
    def connected() -> tuple[threading.Thread, int]:
        Topic.objects.exists()
        return threading.current_thread(), id(connection.connection)

    with override_settings(REALTIME={"DATABASE_THREADS": 1}):
        seen = [await DATABASE.run(connected) for _ in range(5)]
        # A thread that a test before has left may take one of them.
        assert len(set(seen)) == len({thread for thread, _ in seen}) < 5
        with pytest.raises(ZeroDivisionError):
            await DATABASE.run(lambda: 1 / 0)
        assert await DATABASE.run(connected) in seen, "not an error of the database"


async def test_a_connection_is_dropped_after_an_error_of_the_database():
    def fail() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT nonsense")

    with override_settings(REALTIME={"DATABASE_THREADS": 1}):
        with pytest.raises(Exception, match="nonsense"):
            await DATABASE.run(fail)
        assert await DATABASE.run(lambda: connection.connection) is None


@pytest.mark.parametrize(
    ("run", "cause", "calls"),
    [
        (DATABASE.run, None, 1),
        (DATABASE.run_twice, None, 2),
        (DATABASE.run_twice, PoolTimeout(), 1),
    ],
)
async def test_only_a_read_is_tried_again_and_once(run, cause, calls):
    called = []

    def fail() -> None:
        called.append(1)
        raise OperationalError("server closed the connection unexpectedly") from cause

    with pytest.raises(OperationalError):
        await run(fail)
    assert len(called) == calls


def test_threads_end_and_new_ones_start():
    asyncio.run(DATABASE.run(thread_name))
    assert our_threads()
    DATABASE.close()
    assert our_threads() == []
    DATABASE.close()  # a second time: nothing to do
    asyncio.run(DATABASE.run(thread_name))


def test_close_waits_for_busy_threads():
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
        busy = asyncio.ensure_future(DATABASE.run(work))
        await asyncio.to_thread(started.wait, 20)
        await asyncio.to_thread(DATABASE.close)
        return await busy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("realtime.utils.threads.connections", Watched())
        name = asyncio.run(main())
    assert name in closed
    assert len(closed) == len(set(closed))


async def test_a_stuck_call_has_another_thread_in_its_place_but_not_for_ever(monkeypatch):
    monkeypatch.setattr("realtime.utils.threads.STUCK_SECONDS", 0.05)
    stuck = threading.Event()
    with override_settings(REALTIME={"DATABASE_THREADS": 1}):
        first = DATABASE.submit(stuck.wait)
        assert await DATABASE.run(lambda: 1) == 1
        second = DATABASE.submit(stuck.wait)
        third = DATABASE.submit(stuck.wait)  # there are twice as many already
        await asyncio.sleep(0.2)
        assert not third.running()
        assert len(our_threads()) == 2
        stuck.set()
        await asyncio.gather(*(asyncio.wrap_future(call) for call in (first, second, third)))


EXITING = """
import os, time, django
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.support.settings"
django.setup()
from realtime.utils.threads import DATABASE
DATABASE.submit(time.sleep, 600)
"""


def test_a_call_that_a_leaving_thread_has_left_is_made_though_the_others_get_stuck(monkeypatch):
    stuck_seconds = "realtime.utils.threads.STUCK_SECONDS"
    monkeypatch.setattr(stuck_seconds, 0.05)
    first, second, begun = threading.Event(), threading.Event(), threading.Event()
    with override_settings(REALTIME={"DATABASE_THREADS": 1}):
        calls = [DATABASE.submit(first.wait), DATABASE.submit(begun.set)]
        calls.append(DATABASE.submit(second.wait))
        assert begun.wait(10)
        wait_until(
            # One that died before it ran, in another test, is listed for good.
            lambda: not [t for t in threading.enumerate() if t.name == WATCH and t.is_alive()],
            what="the end of the watch",
        )
        monkeypatch.setattr(stuck_seconds, 1.0)  # the second call is not stuck yet
        first.set()
        assert calls[0].result(10)
        assert DATABASE.submit(lambda: 1).result(10) == 1
        second.set()
        assert calls[2].result(10)


def test_a_thread_that_cannot_be_started_is_not_counted_on(monkeypatch):
    def fail(*args: object) -> None:
        raise RuntimeError("can't start new thread")

    made: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr("realtime.utils.threads.start_new_thread", fail)
        with pytest.raises(RuntimeError):
            DATABASE.submit(made.append, 1)
    assert DATABASE.submit(lambda: 1).result(10) == 1
    assert made == [], "the caller was told that it failed"


@pytest.mark.parametrize("dying", [("realtime-",), ("realtime-", "watch-")])
def test_a_thread_that_dies_before_it_runs_keeps_nobody_waiting(monkeypatch, dying):
    dead, begin = [], threading.Thread._bootstrap_inner

    def die(thread: threading.Thread) -> None:
        if thread.name.startswith(dying):
            dead.append(thread)  # as without memory for its first steps: `start` waits for ever
        else:
            begin(thread)

    monkeypatch.setattr("realtime.utils.threads.STUCK_SECONDS", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "_bootstrap_inner", die)
        calls = [DATABASE.submit(thread_name)]
        wait_until(lambda: len(dead) >= len(dying), what="the death")
    if "watch-" in dying:
        DATABASE._watched_until = 0.0  # that time has passed
        calls.append(DATABASE.submit(thread_name))
    for call in calls:
        assert call.result(10).startswith("realtime-database")


def test_a_stuck_thread_does_not_keep_the_process_from_its_end():
    subprocess.run([sys.executable, "-c", EXITING], cwd=ROOT, check=True, timeout=60)


def test_close_does_not_wait_for_a_stuck_thread(monkeypatch):
    monkeypatch.setattr("realtime.utils.threads.CLOSE_SECONDS", 0.1)
    stuck = threading.Event()
    call = DATABASE.submit(stuck.wait)
    DATABASE.close()
    assert not call.done()
    assert DATABASE.submit(lambda: 1).result(10) == 1, "in a new one"
    stuck.set()
    assert call.result(10)
    wait_until(lambda: len(our_threads()) == 1, what="the end of the one that was stuck")


# -- for transfers


async def test_few_threads_for_many():
    names: set[str] = set()
    all_of_them = threading.Barrier(4, timeout=10)

    def work() -> None:
        names.add(threading.current_thread().name)
        all_of_them.wait()  # none takes another's share
        time.sleep(0.02)

    await asyncio.gather(*(TRANSFER.run(work) for _ in range(20)))
    assert len(names) == 4
    assert all(name.startswith("realtime-transfer") for name in names)


async def test_a_pooled_connection_goes_back_and_another_is_kept():
    def used() -> tuple[int, bool]:
        User.objects.count()
        return id(connection.connection), connection.connection is not None

    await TRANSFER.run(used)
    kept = await asyncio.gather(
        *(TRANSFER.run(lambda: connections["default"].connection) for _ in range(8))
    )
    if ON_POSTGRESQL:  # the tests' settings have a pool there
        assert set(kept) == {None}


async def test_after_an_error_of_the_database_the_connection_is_new():
    def fail() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT nonsense FROM nowhere")

    threads = Settings.TRANSFER_THREADS.default
    all_of_them = threading.Barrier(threads, timeout=10)

    def is_open() -> bool:
        all_of_them.wait()
        return connection.connection is not None

    def use() -> None:
        all_of_them.wait()
        connection.ensure_connection()

    await asyncio.gather(*(TRANSFER.run(use) for _ in range(threads)))
    with pytest.raises(DatabaseError):
        await TRANSFER.run(fail)
    are_open = await asyncio.gather(*(TRANSFER.run(is_open) for _ in range(threads)))
    # On PostgreSQL all go back to the pool.
    assert sum(are_open) == (0 if ON_POSTGRESQL else threads - 1)


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

    await asyncio.gather(*(DATABASE.run(connected) for _ in range(4)))


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
    DATABASE.close()  # into the pool
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
        new = NewEvent("a", "message", "1")
        return [event.offset for _ in range(12) for event in await append([new])]

    assert asyncio.run(publish()) == list(range(1, 13))


@postgresql_only
async def test_a_connection_that_may_be_silent_is_replaced():
    def connected() -> int:
        Topic.objects.exists()
        return id(connection.connection)

    def suspect() -> None:
        connection.connection.is_suspect = True  # as another that got no answer leaves it

    with override_settings(REALTIME={"DATABASE_THREADS": 1}):
        first = await DATABASE.run(lambda: Topic.objects.exists() or connection.connection)
        await DATABASE.run(suspect)
        assert await DATABASE.run(connected) != id(first)
        assert first.closed


@postgresql_only
def test_close_connections_leaves_none():
    without_pool()  # so that new ones are made, not an earlier test's taken
    before = set(backends())  # an earlier test's, in threads that are not these
    asyncio.run(connect_all())
    held = set(backends()) - before
    assert held
    DATABASE.close()
    without_pool()
    wait_until(lambda: not set(backends()) & held, what="the end of the connections")
    assert postgresql_uri()


FORKED = """
import asyncio, os, sys, django
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.support.settings"
django.setup()
from realtime.utils.threads import DATABASE, TRANSFER

async def pids():
    return {await pool.run(os.getpid) for pool in (DATABASE, TRANSFER)}

def work():
    (pid,) = asyncio.run(asyncio.wait_for(pids(), 20))
    return pid

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
