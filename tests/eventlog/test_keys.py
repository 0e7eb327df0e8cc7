"""`realtime.eventlog.keys`: what comes again with its key is stored once, in any log."""

import asyncio
import threading
from collections.abc import Sequence
from datetime import timedelta
from unittest.mock import patch

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError, connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from realtime.eventlog import writer
from realtime.eventlog.base import EventLog, NewEvent
from realtime.eventlog.keys import KEYS_PER_QUERY
from realtime.events.event import Event
from realtime.exceptions import KeyReused
from realtime.models import IdempotencyKey, Topic

from .support import Threads, append_together, failing_once, fill, forget, locked, offsets
from .support import log as database_log

pytestmark = pytest.mark.django_db(transaction=True)


def keyed(data: int, key: str = "k", topic: str = "a", type: str = "message") -> NewEvent:
    return NewEvent(topic, type, str(data), key=key)


def places(events: list[Event]) -> list[tuple[int, bool]]:
    return [(event.offset, event.is_repeated) for event in events]


def head(log: EventLog, topic: str = "a") -> int:
    return async_to_sync(log.heads)([topic])[topic].offset


def test_the_second_gets_the_place_of_the_first(log):
    [first] = log.append([keyed(1)])
    log.append([NewEvent("a", "message", "2")])
    [second] = log.append([keyed(1)])
    [third] = async_to_sync(log.aappend)([keyed(1)])
    assert places([first, second, third]) == [(1, False), (1, True), (1, True)]
    assert second.id == third.id == first.id
    assert head(log) == 2


def test_a_key_is_of_its_topic_and_as_it_is_written(log):
    events = log.append(
        [
            keyed(1),
            keyed(1, topic="b"),
            keyed(1, "K"),
            keyed(1, "k "),
            keyed(1)._replace(publisher="user.7"),
            keyed(1)._replace(key=None),
        ]
    )
    assert places(events) == [(n, False) for n in (1, 1, 2, 3, 4, 5)]


@pytest.mark.parametrize("other", [keyed(2), keyed(1, type="other")], ids=["data", "type"])
def test_with_another_event_the_key_is_refused_and_nothing_of_the_batch_is_stored(log, other):
    log.append([keyed(1)])
    for batch in ([keyed(3, "new"), other], [keyed(3, "new", "b"), other]):
        with pytest.raises(KeyReused):
            log.append(batch)
        with pytest.raises(KeyReused):
            async_to_sync(log.aappend)(batch)
    with pytest.raises(KeyReused):
        log.append([keyed(5, "twice"), keyed(6, "twice")])
    assert head(log) == 1
    assert places(log.append([keyed(4, "new")])) == [(2, False)]


def test_of_a_batch_those_that_came_before_are_left_out_without_a_gap(log):
    log.append([keyed(1, "one"), keyed(2, "two")])
    batch = [keyed(3, "x"), keyed(2, "two"), keyed(3, "x"), keyed(4, "y"), keyed(1, "one")]
    expected = [(3, False), (2, True), (3, True), (4, False), (1, True)]
    assert places(log.append(batch)) == expected
    assert head(log) == 4
    assert places(log.append([NewEvent("a", "message", "1")])) == [(5, False)]


def test_after_a_new_epoch_the_id_is_that_under_which_the_event_is_now(log):
    [first] = log.append([keyed(1)])
    log.start_epoch()
    [second] = log.append([keyed(1)])
    assert second.is_repeated
    assert second.offset == first.offset
    assert second.epoch == async_to_sync(log.heads)(["a"])["a"].epoch != first.epoch


# -- in the database


def test_publishers_of_one_batch_are_answered_each_for_itself():
    append_together(keyed(1), keyed(2, "two"))
    answers = append_together(
        NewEvent("a", "message", "0"), keyed(1), keyed(7), keyed(3, "three"), keyed(3, "three")
    )
    assert isinstance(answers.pop(2), KeyReused)
    assert places(answers) == [(3, False), (1, True), (4, False), (4, True)]
    assert offsets("a") == [1, 2, 3, 4]


def test_a_rollback_frees_the_key():
    with transaction.atomic():
        database_log.append([keyed(1)])
        transaction.set_rollback(True)
    assert places(database_log.append([keyed(2)])) == [(1, False)]


def test_a_refused_key_leaves_the_transaction_as_it_was():
    database_log.append([keyed(1)])
    with transaction.atomic():
        with pytest.raises(KeyReused):
            database_log.append([keyed(2)])
        assert places(database_log.append([keyed(2, "other"), keyed(1)])) == [(2, False), (1, True)]
    assert offsets("a") == [1, 2]


@pytest.mark.parametrize("topic", ["old", "new"])
@pytest.mark.parametrize("is_kept", [True, False], ids=["commit", "rollback"])
def test_of_two_at_once_one_is_stored(topic, is_kept):
    appended, answers = threading.Event(), []
    if topic == "old":
        fill(topic, 1)
    before = offsets(topic)

    def first() -> None:
        with transaction.atomic():
            database_log.append([keyed(1, topic=topic)])
            appended.set()
            second_has_answer.wait(0.3)
            assert not answers  # it waits for what becomes of this
            transaction.set_rollback(not is_kept)

    def second() -> None:
        assert appended.wait(10)
        answers.extend(database_log.append([keyed(1, topic=topic)]))
        second_has_answer.set()

    second_has_answer = threading.Event()
    with Threads(2) as run:
        run.start(first)
        run.start(second)
    assert places(answers) == [(len(before) + 1, is_kept)]
    assert offsets(topic) == [*before, len(before) + 1]


@pytest.mark.parametrize("is_done", [True, False], ids=["stored", "not stored"])
def test_a_commit_that_was_not_answered_is_no_reason_to_refuse_or_repeat(is_done):
    lost = OperationalError("server closed the connection unexpectedly")
    with failing_once(BaseDatabaseWrapper, "_commit", lost, is_done=is_done):
        assert places(database_log.append([keyed(1)])) == [(1, False)]
    with failing_once(BaseDatabaseWrapper, "_commit", lost, is_done=is_done):
        assert places(database_log.append([keyed(1)])) == [(1, True)]
    assert offsets("a") == [1]
    assert (Topic.objects.get().head, IdempotencyKey.objects.count()) == (1, 1)


@pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer locks all of SQLite")
def test_a_key_of_a_topic_that_is_locked_waits_with_its_event():
    batch = [keyed(1, topic="free"), keyed(1, topic="held.key")]
    with locked("held.key"):
        first, waiting = writer.append_unlocked(batch)
    assert (first.offset, waiting) == (1, None)
    assert places(writer.append(batch)) == [(1, True), (2, False)]


def test_batches_over_several_topics_at_once_leave_no_gap():
    async def main() -> list[list[Event]]:
        batches = [[NewEvent(t, "message", str(n)) for t in "ab"] for n in range(10)]
        return await asyncio.gather(*map(database_log.aappend, batches), database_log.aappend([]))

    *stored, empty = asyncio.run(main())
    assert empty == []
    assert all(a.offset == b.offset for a, b in stored)
    assert offsets("a") == offsets("b") == list(range(1, 11))


def test_a_batch_over_several_topics_is_not_stored_in_part():
    def leave_out(batch: Sequence[NewEvent]) -> list[Event | None]:
        """As the fast way does where somebody has locked topic b."""
        stored = iter(writer.append([event for event in batch if event.topic != "b"]))
        return [None if event.topic == "b" else next(stored) for event in batch]

    batch = [NewEvent(topic, "message", "1") for topic in "aba"]
    with patch("realtime.eventlog.database.append_unlocked", leave_out):
        events = asyncio.run(database_log.aappend(batch))
        alone = asyncio.run(database_log.aappend(batch[1:2]))
    assert [event.offset for event in [*events, *alone]] == [1, 1, 2, 2]
    assert (offsets("a"), offsets("b")) == ([1, 2], [1, 2])


def test_more_keys_than_one_statement_takes():
    batch = [keyed(n, str(n)) for n in range(2 * KEYS_PER_QUERY + 1)]
    assert not any(event.is_repeated for event in database_log.append(batch))
    assert places(database_log.append(batch)) == [(n, True) for n in range(1, len(batch) + 1)]


def test_without_a_key_no_key_is_looked_for():
    fill("a", 1)
    with CaptureQueriesContext(connection) as queries:
        database_log.append([NewEvent("a", "message", "1")])
    assert queries.captured_queries
    assert not [each for each in queries if IdempotencyKey._meta.db_table in each["sql"]]


def test_a_key_is_known_for_longer_than_its_event_and_then_forgotten():
    database_log.append([keyed(1), keyed(2, "young")])
    forget("a", 2)
    old = timezone.now() - timedelta(seconds=60)
    assert IdempotencyKey.objects.filter(offset=1).update(created=old) == 1
    with override_settings(REALTIME={"IDEMPOTENCY_SECONDS": 120}):
        database_log.prune()
    assert places(database_log.append([keyed(1)])) == [(1, True)]
    with override_settings(REALTIME={"IDEMPOTENCY_SECONDS": 30}):
        assert database_log.prune() == {}
    assert places(database_log.append([keyed(1), keyed(2, "young")])) == [(3, False), (2, True)]


def test_a_topic_takes_its_keys_along():
    database_log.append([keyed(1)])
    Topic.objects.all().delete()
    assert places(database_log.append([keyed(2)])) == [(1, False)]
