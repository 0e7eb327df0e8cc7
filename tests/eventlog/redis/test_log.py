"""`realtime.eventlog.redis.log` over a real Valkey, whatever becomes of that: no silent loss.

A reader that has had events has to get all that follows, or to be told that it can't.
"""

import asyncio
import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.exceptions import SynchronousOnlyOperation
from django.db import transaction
from django.db.models.functions import Now
from django.test import override_settings
from redis import Redis

from realtime.delivery.publish import publish
from realtime.eventlog.base import NewEvent
from realtime.eventlog.known_heads import known_heads
from realtime.eventlog.redis.log import RedisLog
from realtime.events.event import Event
from realtime.events.position import OLDEST, START, Position
from realtime.exceptions import DatabaseUnavailable, HistoryGone
from realtime.llm import store
from realtime.llm.models import Generation
from realtime.utils.background_loop import background_loop

from ...support.attempts import three_tries
from ...support.servers import Valkey, wait_until
from ..support import redis_log_at

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _processes_forget() -> Iterator[None]:
    """As if all processes of the site had been started anew: what Redis says has to be enough."""
    known_heads._positions.clear()
    yield
    background_loop.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "valkey"


def fill(log: RedisLog, count: int, topic: str = "a") -> list[Event]:
    return [log.append([NewEvent(topic, "message", str(n))])[0] for n in range(count)]


def head(log: RedisLog, topic: str = "a") -> Position:
    return async_to_sync(log.heads)([topic]).get(topic, START)


def read(log: RedisLog, after: Position, topic: str = "a") -> list[Event]:
    return async_to_sync(log.read)(topic, after, 1_000).events


def is_gone(log: RedisLog, after: Position) -> bool:
    try:
        read(log, after)
    except HistoryGone:
        return True
    return False


def follow(log: RedisLog, had: list[Event]) -> str:
    """What a reader gets that has had events: a "reset", or "all" that followed them."""
    new = fill(log, 3)
    if is_gone(log, had[-1].position):
        return "reset"
    found = read(log, had[-1].position)
    assert found == new
    assert [event.offset for event in [*had, *new]] == list(range(1, len(had) + 4))
    return "all"


def forget() -> None:
    known_heads._positions.clear()


# -- a server that is killed


def test_killed_without_a_file_is_a_reset(valkey):
    log = redis_log_at(valkey.url)
    had = fill(log, 5)
    valkey.kill()
    valkey.start()
    assert head(log) == START
    assert is_gone(log, had[-1].position)
    assert follow(log, had) == "reset"
    assert follow(log, fill(log, 0) or had) == "reset"


@pytest.mark.parametrize("is_trusted", [True, False])
def test_killed_with_a_file_keeps_all_and_is_a_reset_unless_it_is_trusted(folder, is_trusted):
    valkey = Valkey(folder, appendonly="yes", appendfsync="always")
    try:
        log = redis_log_at(valkey.url)
        with override_settings(REALTIME={"REDIS_LOG_TRUST_RESTART": is_trusted}):
            had = fill(log, 5)
            valkey.kill()
            valkey.start()
            assert read(log, had[1].position) == had[2:]
            assert follow(log, had) == ("all" if is_trusted else "reset")
            assert [e.data for e in read(log, OLDEST)] == [*"01234", *"012"]
            assert follow(log, read(log, OLDEST)) == "all"
    finally:
        valkey.stop()


@pytest.mark.parametrize(
    ("is_known", "is_trusted"),
    # Who trusts a file that loses, with no process left that knew, is told nothing.
    [(True, True), (True, False), (False, False)],
)
def test_an_older_file_put_back_is_a_reset(folder, tmp_path, is_known, is_trusted, caplog):
    """It has lost the tail, and gives the same offsets again to other events."""
    valkey = Valkey(folder, appendonly="yes", appendfsync="always")
    try:
        log = redis_log_at(valkey.url)
        with override_settings(REALTIME={"REDIS_LOG_TRUST_RESTART": is_trusted}):
            had = fill(log, 4)
            shutil.copytree(folder / "appendonlydir", tmp_path / "older")
            had += fill(log, 3)
            valkey.kill()
            shutil.rmtree(folder / "appendonlydir")
            shutil.copytree(tmp_path / "older", folder / "appendonlydir")
            valkey.start()
            if not is_known:
                forget()
            assert is_gone(log, had[-1].position)
            assert follow(log, had) == "reset"
            [last] = fill(log, 1)
            assert last.offset == 8
            assert last.epoch != had[0].epoch
    finally:
        valkey.stop()
    assert ("The log of a went back" in caplog.text) == is_known


def test_a_look_at_the_heads_finds_what_was_lost(folder, tmp_path, caplog):
    """Though nobody appends: readers that wait are told too."""
    valkey = Valkey(folder, appendonly="yes", appendfsync="always")
    try:
        log = redis_log_at(valkey.url)
        fill(log, 4)
        shutil.copytree(folder / "appendonlydir", tmp_path / "older")
        had = fill(log, 3)
        valkey.kill()
        shutil.rmtree(folder / "appendonlydir")
        shutil.copytree(tmp_path / "older", folder / "appendonlydir")
        valkey.start()
        now = head(log)
        assert (now.offset, now.epoch == had[0].epoch) == (4, False)
        assert head(log) == now
    finally:
        valkey.stop()
    assert caplog.text.count("The log of a went back") == 1


# -- a server that loses keys


def test_a_flush_is_a_reset(redis_log, shared_valkey):
    had = fill(redis_log, 5)
    with Redis.from_url(shared_valkey.url) as client:
        client.flushall()
    assert is_gone(redis_log, had[-1].position)
    assert follow(redis_log, had) == "reset"


@pytest.mark.parametrize("lost", ["meta", "stream", "topics", "key"])
def test_what_is_evicted_is_a_reset_or_missed_by_nobody(redis_log, shared_valkey, lost):
    had = fill(redis_log, 3)
    had += redis_log.append([NewEvent("a", "message", "3", key="k")])
    with Redis.from_url(shared_valkey.url) as client:
        names = [name for name in client.scan_iter() if f":{lost}".encode() in name]
        assert client.delete(*names) == 1
    if lost in ("meta", "stream"):
        assert is_gone(redis_log, had[1].position)
    assert follow(redis_log, had) == ("reset" if lost == "meta" else "all")
    if lost in ("meta", "stream"):
        assert is_gone(redis_log, had[1].position)


def test_under_eviction_each_reader_has_all_or_is_told(caplog):
    valkey = Valkey(**{"maxmemory": "3mb", "maxmemory-policy": "allkeys-lru"})
    try:
        log = redis_log_at(valkey.url)
        had = {f"t{n}": fill(log, 2, f"t{n}") for n in range(20)}
        stored = {
            topic: {event.position: event for event in events} for topic, events in had.items()
        }
        for n in range(300):
            topic = f"t{n % 20}"
            try:
                [event] = log.append([NewEvent(topic, "message", f'"{n} {"x" * 8_000}"')])
            except DatabaseUnavailable:
                continue  # more than there is room for
            assert event.position not in stored[topic], "an offset was given twice"
            stored[topic][event.position] = event
        kept = 0
        for topic, events in had.items():
            position = events[-1].position
            try:
                while page := async_to_sync(log.read)(topic, position, 1_000).events:
                    for event in page:
                        assert event.offset == position.offset + 1
                        assert stored[topic][event.position] == event
                        position, kept = event.position, kept + 1
            except HistoryGone:
                continue
            newest = list(stored[topic])[-1]
            assert position == newest, "what follows is neither there nor said to be gone"
        with Redis.from_url(valkey.url) as client:
            assert client.info("stats")["evicted_keys"] > 0
    finally:
        valkey.stop()


# -- a replica that is promoted


@pytest.mark.parametrize("is_behind", [True, False])
def test_a_replica_that_is_promoted_is_a_reset(valkey, is_behind):
    replica = Valkey()
    try:
        with Redis.from_url(valkey.url) as old, Redis.from_url(replica.url) as new:
            new.replicaof("127.0.0.1", valkey.port)
            wait_until(lambda: new.info("replication")["master_link_status"] == "up")
            log = redis_log_at(valkey.url)
            had = fill(log, 4)
            wait_until(lambda: new.exists(log._space.meta("a")))
            wait_until(lambda: new.hget(log._space.meta("a"), "head") == b"4")
            if is_behind:
                new.replicaof("NO", "ONE")
                had += fill(log, 3)
            else:
                new.replicaof("NO", "ONE")
            old.shutdown(nosave=True)
        forget()
        promoted = redis_log_at(replica.url)
        assert follow(promoted, had) == "reset"
        assert follow(promoted, read(promoted, OLDEST)) == "all"
    finally:
        replica.stop()


def test_back_at_the_first_server_after_two_promotions_is_a_reset(valkey):
    """Its process is the same as before, and its tail is not."""
    other = Valkey()
    try:
        with Redis.from_url(valkey.url) as first, Redis.from_url(other.url) as second:
            second.replicaof("127.0.0.1", valkey.port)
            wait_until(lambda: second.info("replication")["master_link_status"] == "up")
            log = redis_log_at(valkey.url)
            had = fill(log, 4)
            wait_until(lambda: second.hget(log._space.meta("a"), "head") == b"4")
            second.replicaof("NO", "ONE")
            had += fill(log, 3)
            first.replicaof("127.0.0.1", other.port)
            wait_until(lambda: first.hget(log._space.meta("a"), "head") == b"4")
            first.replicaof("NO", "ONE")
        forget()
        assert follow(log, had) == "reset"
    finally:
        other.stop()


# -- others find it


@pytest.mark.parametrize("is_other", [True, False])
async def test_another_event_at_a_known_place_ends_the_epoch_once(redis_log, is_other, caplog):
    [event] = await redis_log.aappend([NewEvent("a", "message", "1", '{"sender":1}')])
    known = Event("a", "message", "2" if is_other else "1", event.epoch, 1, event.meta)
    for _ in range(3):
        await redis_log.end_epoch(known)
    heads = await redis_log.heads(["a"])
    assert (heads["a"].epoch != event.epoch) is is_other
    assert caplog.text.count("The log of a went back") == is_other
    assert (await redis_log.read("a", OLDEST, 10)).events[0].data == "1"


# -- transactions


def test_what_is_published_in_a_transaction_is_announced_after_its_commit(redis_log, caplog):
    announced: list[str] = []

    def announce(events: list[Event]) -> None:
        announced.extend(event.data for event in events)

    patched = patch("realtime.delivery.pending.announce", announce)
    with patched, override_settings(REALTIME={"EVENT_LOG": lambda: redis_log}):
        with transaction.atomic():
            event = publish("a", 1)
            keyed = publish("a", 2, key="k")
            assert (event.id, event.is_pending) == (None, True)
        assert not event.is_pending
        assert event.id == str(event.position)
        with transaction.atomic():
            again = publish("a", 2, key="k")
            refused = publish("a", 3, key="k")
            other = publish("a", 4)
    assert [e.data for e in read(redis_log, OLDEST)] == ["1", "2", "4"]
    assert (again.id, again.is_repeated) == (keyed.id, True)
    assert (refused.is_pending, other.offset) == (True, 3)
    assert announced == ["1", "2", "4"]
    assert "what it published is not stored: a" in caplog.text


async def test_publishing_from_an_event_loop_is_refused_as_django_does(redis_log):
    with pytest.raises(SynchronousOnlyOperation):
        redis_log.append([NewEvent("a", "message", "1")])


# -- no server


def test_without_a_server_it_is_unavailable_at_once(redis_log, valkey, caplog):
    log = redis_log_at(valkey.url)
    had = fill(log, 1)
    valkey.kill()
    for call in (lambda: fill(log, 1), lambda: read(log, OLDEST), lambda: head(log)):
        with pytest.raises(DatabaseUnavailable):
            call()
    with pytest.raises(DatabaseUnavailable):
        async_to_sync(log.check_writable)()
    with transaction.atomic():
        [event] = log.append([NewEvent("a", "message", "1")])
    assert event.is_pending
    assert "what it published is not stored: a" in caplog.text
    valkey.start()
    assert follow(log, had) == "reset"
    assert [r for r in caplog.records if r.levelno >= logging.ERROR][1:] == []


def test_an_answer_of_a_model_with_a_hole_does_not_go_on(valkey, caplog):
    log = redis_log_at(valkey.url)
    user = User.objects.create_user("alice")
    own = {"user": user, "name": "n", "topic": "answer.n", "key": "k", "digest": "d", "model": "m"}
    row = Generation.objects.create(**own, beat=Now(), heard=Now())
    with override_settings(REALTIME={"EVENT_LOG": lambda: log}):
        [event] = store.append(row, ["Once"])
        assert event.offset == 1
        valkey.kill()
        with pytest.raises(DatabaseUnavailable):
            store.append(row, ["upon"])
        with pytest.raises(DatabaseUnavailable):
            store.end_cancelled("n")
    assert caplog.text.count("what it published is not stored: answer.n") == 2


def test_a_server_without_memory_stores_nothing_and_readers_go_on(caplog):
    valkey = Valkey(**{"maxmemory": "3mb", "maxmemory-policy": "noeviction"})
    try:
        log = redis_log_at(valkey.url)
        had = []

        def fill_up() -> None:
            for size in (60_000, 1_000, 1):
                with suppress(DatabaseUnavailable):
                    for _ in range(1_000):
                        had.extend(log.append([NewEvent("a", "message", f'"{"x" * size}"')] * 2))
            with suppress(DatabaseUnavailable):
                async_to_sync(log.check_writable)()
                raise AssertionError("it can be written to")

        three_tries(fill_up)  # the server may free a buffer just before it is asked
        assert len(had) > 2
        found, position = [], OLDEST
        while page := read(log, position):
            found, position = found + page, page[-1].position
        assert found == had
    finally:
        valkey.stop()


async def test_its_loops_and_threads_share_one_log(redis_log):
    thread = threading.Thread(target=fill, args=[redis_log, 5])
    thread.start()
    for n in range(5):
        await redis_log.aappend([NewEvent("a", "message", str(n))])
    await asyncio.to_thread(thread.join)
    page = await redis_log.read("a", START, 100)
    assert [event.offset for event in page.events] == list(range(1, 11))
