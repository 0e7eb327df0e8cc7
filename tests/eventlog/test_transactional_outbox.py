"""`realtime.eventlog.transactional_outbox`: once in the log, whatever ends between the two."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import DatabaseError, transaction
from django.db.models.functions import Now
from django.test import override_settings
from redis import Redis

from realtime.eventlog import transactional_outbox as outbox
from realtime.eventlog.base import NewEvent
from realtime.eventlog.redis.log import RedisLog
from realtime.events.event import Event
from realtime.events.position import OLDEST
from realtime.exceptions import DatabaseUnavailable, OutcomeUnknown
from realtime.models import OutboxEntry
from realtime.utils.background_loop import background_loop

from ..support.servers import ROOT, Valkey, environment
from ..support.sites import shortened
from .support import redis_log_at

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _outbox() -> Iterator[None]:
    with override_settings(REALTIME={"REDIS_LOG_OUTBOX": True, "APPEND_RESOLVE_SECONDS": 0.1}):
        yield
    background_loop.stop()


def publish_in_transaction(log: RedisLog, *data: str) -> list[Event]:
    with transaction.atomic():
        return [log.append([NewEvent("a", "message", each)])[0] for each in data]


def kept(log: RedisLog, topic: str = "a") -> list[str]:
    return [event.data for event in async_to_sync(log.read)(topic, OLDEST, 100).events]


def keys(valkey: Valkey) -> int:
    with Redis.from_url(valkey.url) as client:
        return sum(1 for _ in client.scan_iter("realtime:log:*:key:*"))


def pass_lease() -> None:
    """As if nobody had moved the rows for as long as a lease."""
    OutboxEntry.objects.update(created=Now() - timedelta(seconds=11))


def move(log: RedisLog, valkey: Valkey) -> list[str]:
    """What another process finds to be moved, as if it were its turn."""
    with Redis.from_url(valkey.url) as client:
        client.delete("realtime:log:outbox")
    return [event.data for event in background_loop.run(moved_by, log)]


async def moved_by(log: RedisLog) -> list[Event]:
    return [event async for events in log.move_outbox() for event in events]


def test_it_is_a_row_until_it_is_stored_and_leaves_nothing(redis_log, shared_valkey):
    with transaction.atomic():
        events = [redis_log.append([NewEvent("a", "message", n)])[0] for n in "12"]
        [batch] = redis_log.append([NewEvent("a", "message", "3", key="own")])
        assert OutboxEntry.objects.count() == 3
        assert kept(redis_log) == []
    assert [event.offset for event in (*events, batch)] == [1, 2, 3]
    assert kept(redis_log) == ["1", "2", "3"]
    assert not OutboxEntry.objects.exists()
    assert keys(shared_valkey) == 1  # the publisher's own


def test_what_is_rolled_back_is_in_neither(redis_log):
    with transaction.atomic():
        with transaction.atomic():
            redis_log.append([NewEvent("a", "message", "1")])
            transaction.set_rollback(True)
        redis_log.append([NewEvent("a", "message", "2")])
    with transaction.atomic():
        redis_log.append([NewEvent("a", "message", "3")])
        transaction.set_rollback(True)
    assert kept(redis_log) == ["2"]
    assert not OutboxEntry.objects.exists()


def test_outside_of_transactions_and_where_it_is_off_there_is_no_row(
    redis_log, django_assert_num_queries
):
    with django_assert_num_queries(0):
        redis_log.append([NewEvent("a", "message", "1")])
    with override_settings(REALTIME={}), transaction.atomic():
        redis_log.append([NewEvent("a", "message", "2")])
        assert not OutboxEntry.objects.exists()
        pass_lease()
    assert kept(redis_log) == ["1", "2"]


def test_what_redis_could_not_store_is_stored_when_it_can(valkey, caplog):
    log = redis_log_at(valkey.url)
    valkey.kill()
    events = publish_in_transaction(log, "1", "2")
    assert all(event.is_pending for event in events)
    assert OutboxEntry.objects.count() == 2
    assert "in the outbox until it can be stored: a" in caplog.text
    valkey.start()
    assert move(log, valkey) == []  # not yet due
    pass_lease()
    assert move(log, valkey) == ["1", "2"]
    assert kept(log) == ["1", "2"]
    assert not OutboxEntry.objects.exists()


def test_what_is_stored_and_not_noted_is_stored_once(redis_log, shared_valkey, monkeypatch, caplog):
    """An answer that was lost, and a database that is away right after the append."""
    original = redis_log._appender.append

    async def append(batch: Any, then: Any) -> Any:
        await original(batch, then)
        raise OutcomeUnknown

    def delete(*args: Any) -> Any:
        raise DatabaseError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(redis_log._appender, "append", append)
        publish_in_transaction(redis_log, "1")
    with monkeypatch.context() as patched:
        patched.setattr("django.db.models.query.QuerySet.delete", delete)
        publish_in_transaction(redis_log, "2")
    assert "Can't tell the outbox" in caplog.text
    assert OutboxEntry.objects.count() == 2
    pass_lease()
    assert move(redis_log, shared_valkey) == []  # repeated, and announced before
    assert kept(redis_log) == ["1", "2"]
    assert not OutboxEntry.objects.exists()


def test_what_another_has_taken_over_meanwhile_is_stored_once(redis_log, shared_valkey):
    """Its own process goes on only now, and the other one later still."""
    with transaction.atomic():
        redis_log.append([NewEvent("a", "message", "1")])
        pass_lease()
        taken = outbox.take_over("other")
    assert OutboxEntry.objects.count() == 1  # it is the other one's to delete
    assert keys(shared_valkey) == 1
    [batch] = taken.values()
    assert [event.is_repeated for event in redis_log.append(batch)] == [True]
    assert kept(redis_log) == ["1"]
    assert outbox.take_over("other") == {}  # for a lease
    pass_lease()
    assert list(outbox.take_over("other")) == list(taken)


def test_what_can_never_be_stored_is_said_and_dropped(redis_log, shared_valkey, caplog):
    redis_log.append([NewEvent("a", "message", "1", key="k")])
    with transaction.atomic():
        redis_log.append([NewEvent("a", "message", "2", key="k")])
    assert "what it published is not stored: a" in caplog.text
    assert not OutboxEntry.objects.exists()
    with transaction.atomic():
        redis_log.append([NewEvent("a", "message", "2", key="k")])
        pass_lease()
        OutboxEntry.objects.update(process="elsewhere")
    pass_lease()
    assert move(redis_log, shared_valkey) == []
    assert not OutboxEntry.objects.exists()


def test_what_fails_as_nobody_expects_stays_too(redis_log, shared_valkey, monkeypatch, caplog):
    """In a process without the URL of Redis, and in one that has no memory just then."""

    async def append(batch: Any, then: Any) -> Any:
        raise MemoryError

    publish_in_transaction(redis_log_at(""), "1")
    assert OutboxEntry.objects.count() == 1
    pass_lease()
    with monkeypatch.context() as patched:
        patched.setattr(redis_log._appender, "append", append)
        assert move(redis_log, shared_valkey) == []
    assert [bool(record.exc_info) for record in caplog.records] == [True, True]
    pass_lease()
    assert move(redis_log, shared_valkey) == ["1"]


def leave_behind(*topics: str) -> None:
    """As by a process that is gone: a row each, whose data are its number."""
    rows = [
        json.dumps([[topic, "message", str(n), None, str(n), outbox.PUBLISHER]])
        for n, topic in enumerate(topics)
    ]
    OutboxEntry.objects.bulk_create(
        [OutboxEntry(process="gone", events=events, created=Now()) for events in rows]
    )
    pass_lease()


def test_one_turn_moves_all_that_is_there_the_oldest_first(redis_log, shared_valkey, monkeypatch):
    monkeypatch.setattr(outbox, "ENTRIES", 10)
    leave_behind(*["a"] * 35)
    with override_settings(REALTIME={"REDIS_LOG_OUTBOX": True, "HEAD_CHECK_SECONDS": 60.0}):
        moved = move(redis_log, shared_valkey)
    assert moved == kept(redis_log) == [str(n) for n in range(35)]


def test_a_turn_ends_in_time_for_what_else_its_process_has_to_do(
    redis_log, shared_valkey, monkeypatch
):
    monkeypatch.setattr(outbox, "ENTRIES", 10)
    leave_behind(*["a"] * 35)
    with override_settings(REALTIME={"REDIS_LOG_OUTBOX": True, "HEAD_CHECK_SECONDS": 0.001}):
        assert len(move(redis_log, shared_valkey)) == 10


def test_what_cant_be_stored_is_overtaken_by_nothing_in_its_topic_and_due_at_once(
    redis_log, shared_valkey, monkeypatch
):
    """As where one node of a cluster is away: all the rest is stored."""
    monkeypatch.setattr(outbox, "ENTRIES", 10)
    original, failed = redis_log._appender.append, []

    async def append(batch: Any, then: Any) -> Any:
        if batch[0].topic == "a" and len(failed) < 5:  # of the first page
            failed.append(batch)
            raise DatabaseUnavailable
        return await original(batch, then)

    monkeypatch.setattr(redis_log._appender, "append", append)
    leave_behind(*["a", "b"] * 15)
    with override_settings(REALTIME={"REDIS_LOG_OUTBOX": True, "HEAD_CHECK_SECONDS": 60.0}):
        assert move(redis_log, shared_valkey) == [str(n) for n in range(1, 30, 2)]
        assert move(redis_log, shared_valkey) == [str(n) for n in range(0, 30, 2)]
    assert kept(redis_log) == [str(n) for n in range(0, 30, 2)]


def test_of_two_that_move_one_has_its_turn(redis_log, shared_valkey):
    async def both() -> list[list[Event]]:
        calls = [moved_by(redis_log) for _ in range(2)]
        return await asyncio.gather(*calls)

    OutboxEntry.objects.create(
        process="gone", events='[["a","message","1",null,"k","realtime.outbox"]]', created=Now()
    )
    pass_lease()
    with Redis.from_url(shared_valkey.url) as client:
        client.delete("realtime:log:outbox")
    assert sorted(len(moved) for moved in background_loop.run(both)) == [0, 1]


# Killed when the transaction has committed; or when the event is stored, and its row still there.
KILLED = """
import os, signal, django
django.setup()
from django.db import transaction
from realtime.delivery.publish import publish
from realtime.eventlog import transactional_outbox
kill = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
if {stored}:
    transactional_outbox.remove = kill
with transaction.atomic():
    if not {stored}:
        transaction.on_commit(kill)
    for n in range(3):
        publish("room.a", n)
"""

MOVING = """
import asyncio, django
django.setup()
from realtime.eventlog import get_event_log
async def count():
    return sum([len(events) async for events in get_event_log().move_outbox()])
print(asyncio.run(count()))
"""


@pytest.mark.parametrize("stored", [False, True])
def test_a_process_killed_after_its_commit_loses_nothing(site, valkey, stored):
    redis = {"EVENT_LOG": "redis", "REDIS_LOG_URL": valkey.url}
    lease = {"PROCESS_LEASE_SECONDS": 0.01, "REDIS_LOG_OUTBOX": True}
    env = environment(shortened(site, lease, **redis))
    command = [sys.executable, "-c", KILLED.format(stored=stored)]
    ended = subprocess.run(command, cwd=ROOT, env=env, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    log = redis_log_at(valkey.url)
    assert kept(log, "room.a") == (["0", "1", "2"] if stored else [])
    command = [sys.executable, "-c", MOVING]
    said = subprocess.run(command, cwd=ROOT, env=env, timeout=60, capture_output=True)
    assert said.stdout.split() == [b"0" if stored else b"3"]
    assert kept(log, "room.a") == ["0", "1", "2"]
