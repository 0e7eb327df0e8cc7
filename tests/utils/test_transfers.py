"""The threads in which responses read."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, connections

from realtime.conf import Settings
from realtime.utils.transfers import in_pieces, in_transfer_thread

from ..support.clients import eventually
from ..support.databases import ON_POSTGRESQL
from ..support.servers import ROOT


async def test_few_threads_for_many():
    names: set[str] = set()
    all_of_them = threading.Barrier(4, timeout=10)

    def work() -> None:
        names.add(threading.current_thread().name)
        all_of_them.wait()  # none takes another's share
        time.sleep(0.02)

    await asyncio.gather(*(in_transfer_thread(work) for _ in range(20)))
    assert len(names) == 4
    assert all(name.startswith("realtime-transfer") for name in names)


@pytest.mark.django_db(transaction=True)
async def test_a_pooled_connection_goes_back_and_another_is_kept():
    def used() -> tuple[int, bool]:
        User.objects.count()
        return id(connection.connection), connection.connection is not None

    await in_transfer_thread(used)
    kept = await asyncio.gather(
        *(in_transfer_thread(lambda: connections["default"].connection) for _ in range(8))
    )
    if ON_POSTGRESQL:  # the tests' settings have a pool there
        assert set(kept) == {None}


@pytest.mark.django_db(transaction=True)
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

    await asyncio.gather(*(in_transfer_thread(use) for _ in range(threads)))
    with pytest.raises(DatabaseError):
        await in_transfer_thread(fail)
    are_open = await asyncio.gather(*(in_transfer_thread(is_open) for _ in range(threads)))
    # On PostgreSQL all go back to the pool.
    assert sum(are_open) == (0 if ON_POSTGRESQL else threads - 1)


async def test_pieces_of_about_a_size():
    parts = [part async for part in in_pieces(iter([b"ab"] * 10), 5)]
    assert b"".join(parts) == b"ab" * 10
    assert [len(part) for part in parts] == [6, 6, 6, 2]
    assert [part async for part in in_pieces(iter([]), 5)] == []


async def test_the_iterator_is_closed_when_nobody_wants_more():
    closed: list[str] = []

    def endless():
        try:
            while True:
                yield b"x"
        finally:
            closed.append(threading.current_thread().name)

    pieces = in_pieces(endless(), 10)
    assert await anext(pieces) == b"x" * 10
    await pieces.aclose()
    await eventually(lambda: closed)
    assert closed[0].startswith("realtime-transfer")


async def test_the_iterator_is_closed_after_the_thread_that_is_still_in_it():
    closed: list[bool] = []
    inside, go_on = threading.Event(), threading.Event()

    def slow():
        try:
            inside.set()
            go_on.wait(5)
            yield b"x"
        finally:
            closed.append(True)

    task = asyncio.create_task(anext(in_pieces(slow(), 10)))  # type: ignore[arg-type]
    await eventually(inside.is_set)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not closed
    go_on.set()
    await eventually(lambda: closed)


FORKED = """
import asyncio, os, sys, django
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
django.setup()
from realtime.utils.transfers import in_transfer_thread

def work():
    return asyncio.run(asyncio.wait_for(in_transfer_thread(os.getpid), 5))

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
