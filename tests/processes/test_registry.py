"""`realtime.processes.registry`: rows by the database's clock, whatever happens to them."""

import asyncio
import gc
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.db import OperationalError, connection, connections, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

import realtime
from realtime.models import Process
from realtime.processes import registry
from realtime.processes.registry import Beat, this_process
from realtime.processes.status import get_status

from ..support.hubs import turns

pytestmark = pytest.mark.django_db(transaction=True)

LEASE = 10.0


@pytest.fixture(autouse=True)
def _short_lease() -> Iterator[None]:
    with override_settings(REALTIME={"PROCESS_LEASE_SECONDS": LEASE}):
        yield


def beat() -> Beat:
    return async_to_sync(registry.beat)()


def add(name: str, age: float) -> None:
    """The row of another process, which has beaten so many seconds ago."""
    made = Now() - timedelta(seconds=age)
    Process.objects.bulk_create([Process(name=name, host="there", started=made, beat=made)])


def test_a_beat_writes_the_row_and_says_whether_it_was_there():
    first = beat()
    assert first.is_new
    row = Process.objects.get()
    assert (row.name, row.beat, bool(row.host)) == (this_process(), first.at, True)
    assert row.version == realtime.__version__
    assert row.name.endswith(f".{os.getpid()}")
    second = beat()
    assert not second.is_new
    assert second.at > first.at
    again = Process.objects.get()
    assert (again.pk, again.started, again.beat) == (row.pk, row.started, second.at)


@pytest.mark.parametrize(
    ("age", "is_alive"), [(0, True), (LEASE - 3, True), (LEASE + 1, False), (-3_600, True)]
)
def test_others_are_alive_for_a_lease(age, is_alive):
    add("another", age)
    assert [beat().others for _ in range(2)] == [int(is_alive)] * 2


def test_others_are_compared_with_what_was_just_written_and_not_with_a_host_s_clock():
    add("another", 1)
    wrong = datetime(1999, 1, 1, tzinfo=UTC)
    with (
        patch("django.utils.timezone.now", lambda: wrong),
        patch("time.time", lambda: wrong.timestamp()),
    ):
        found = beat()
    assert found.others == 1
    assert found.at > wrong
    assert Process.objects.get(name=this_process()).beat == found.at


async def test_each_beat_writes_how_the_process_is():
    for count, lag, failure in [(3, 0.25, ""), (0, 0.0, "TimeoutError")]:
        status = get_status()
        status.connections, status.loop_lag, status.bus_failure = count, lag, failure
        await registry.beat()
        row = await Process.objects.aget()
        assert (row.connections, row.loop_lag, row.bus_failure) == (count, lag, failure)


def test_status_is_written_by_the_statement_that_writes_the_beat():
    beat()
    with CaptureQueriesContext(connection) as caught:
        registry._beat(this_process(), {"connections": 1})
    changes = [each["sql"] for each in caught if each["sql"].startswith("UPDATE")]
    assert len(changes) == 1
    assert len([each for each in caught if each["sql"].startswith("SELECT")]) == 2
    assert Process.objects.get().connections == 1


def test_a_row_that_has_gone_is_written_again():
    beat()
    Process.objects.all().delete()
    assert beat().is_new
    assert not beat().is_new


def test_who_starts_deletes_the_rows_of_those_that_have_gone():
    add("long gone", registry.STALE_LEASES * LEASE + 5)
    add("gone", registry.STALE_LEASES * LEASE - 5)
    beat()
    assert set(Process.objects.values_list("name", flat=True)) == {"gone", this_process()}
    add("long gone", registry.STALE_LEASES * LEASE + 5)
    beat()  # not each time
    assert Process.objects.filter(name="long gone").exists()
    call_command("prune_events", verbosity=0)
    assert not Process.objects.filter(name="long gone").exists()


def test_who_leaves_takes_its_own_row_alone():
    add("another", 1)
    beat()
    async_to_sync(registry.leave)()
    async_to_sync(registry.leave)()
    assert Process.objects.get().name == "another"


async def test_what_was_begun_before_is_over_when_the_row_is_deleted():
    """A beat whose caller is cancelled goes on in its thread."""
    for _ in range(20):
        beating = asyncio.create_task(registry.beat())
        await asyncio.sleep(0)
        beating.cancel()
        await registry.leave()
        await asyncio.gather(beating, return_exceptions=True)
        assert not await Process.objects.aexists()


async def test_what_the_end_of_a_loop_cancels_is_over_too(monkeypatch):
    """All tasks are cancelled, and the thread goes on."""
    is_begun, may_write = threading.Event(), threading.Event()

    def beat_slowly(name: str, columns: Any) -> Beat:
        is_begun.set()
        assert may_write.wait(10)
        return _beat(name, columns)

    _beat = registry._beat
    monkeypatch.setattr(registry, "_beat", beat_slowly)
    beating = asyncio.create_task(registry.beat())
    await asyncio.to_thread(is_begun.wait, 10)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.wait([beating])
    leaving = asyncio.create_task(registry.leave())
    left, _ = await asyncio.wait([leaving], timeout=0.2)
    assert not left
    may_write.set()
    await leaving
    assert not await Process.objects.aexists()


@pytest.mark.parametrize("name", ["beat", "leave"])
async def test_what_fails_after_its_caller_has_left_is_nobody_s(name):
    """As while SQLite is locked and the only reader goes."""
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    begun, door = threading.Event(), threading.Event()

    def fail(*args: Any) -> None:
        begun.set()
        assert door.wait(10)
        raise OperationalError("database is locked")

    with patch.object(registry, f"_{name}", fail):
        calling = asyncio.create_task(getattr(registry, name)())
        await asyncio.to_thread(begun.wait, 10)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        door.set()
        async with registry._in_turn.get():  # once it has ended
            pass
    await turns()
    gc.collect()
    assert not reported


async def test_a_beat_after_a_departure_comes_after_it():
    for _ in range(20):
        _, found = await asyncio.gather(registry.leave(), registry.beat())
        assert found.is_new
        assert await Process.objects.acount() == 1


def test_a_row_is_committed_whatever_transaction_the_caller_has():
    with transaction.atomic():
        if connection.vendor != "sqlite":  # which has one writer at a time
            beat()
        transaction.set_rollback(True)
    assert Process.objects.exists() == (connection.vendor != "sqlite")


@pytest.mark.skipif("connection.vendor != 'sqlite'")
def test_a_locked_database_is_not_waited_for():
    """Another writer may take half a minute: the next beat comes soon."""
    is_locked, done = threading.Event(), threading.Event()

    def lock() -> None:
        with transaction.atomic():
            Process.objects.update(host=F("host"))
            is_locked.set()
            done.wait(30)
        connections.close_all()

    beat()
    locking = threading.Thread(target=lock)
    locking.start()
    assert is_locked.wait(10)
    began = time.monotonic()
    with pytest.raises(OperationalError, match="locked"):
        registry._beat(this_process())
    took = time.monotonic() - began
    done.set()
    locking.join(10)
    assert took < 10  # of the 20 s that others wait
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        assert cursor.fetchone() == (20_000,)
    assert not beat().is_new


def test_the_row_is_where_it_is_written():
    class Replicas:
        def db_for_read(self, model: Any, **hints: Any) -> str:
            raise AssertionError("The replica may be behind.")

    with override_settings(DATABASE_ROUTERS=[Replicas()]):
        assert beat().is_new
