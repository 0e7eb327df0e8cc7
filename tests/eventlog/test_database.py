"""`realtime.eventlog.database`, on whichever database the tests run."""

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from unittest.mock import patch

import pytest
from asgiref.sync import async_to_sync
from django.db import (
    IntegrityError,
    InterfaceError,
    OperationalError,
    connection,
    transaction,
)
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from realtime import models
from realtime.eventlog import database, get_event_log, writer
from realtime.eventlog.base import EventLog, NewEvent, Page
from realtime.eventlog.database import DatabaseLog
from realtime.events.event import Event
from realtime.events.payload import encode_data
from realtime.events.position import OLDEST, START, Position
from realtime.events.topic import validate_topic
from realtime.exceptions import HistoryGone, InvalidTopic, OutcomeUnknown

from ..support.databases import ReplicaForReads
from ..support.servers import ROOT, environment, manage
from .support import (
    Threads,
    aappend,
    after_first_call,
    append,
    append_together,
    failing_once,
    fill,
    forget,
    log,
    message,
    offsets,
    read,
)

pytestmark = pytest.mark.django_db(transaction=True)


# -- append


@pytest.mark.parametrize("count", [1, 4])
def test_what_is_stored_and_had_no_memory_for_its_answer_is_unknown_and_stored_once(count):
    with failing_once(database, "append_unlocked", MemoryError(), is_done=True):
        answers = append_together(*(message("a", n) for n in range(count)))
    assert [type(answer) for answer in answers] == [OutcomeUnknown] * count
    assert offsets("a") == [*range(1, count + 1)]


def test_get_log_makes_one():
    assert isinstance(get_event_log(), DatabaseLog)
    assert get_event_log() is get_event_log()


def test_another_class_by_setting():
    class Other(DatabaseLog):
        pass

    with override_settings(REALTIME={"EVENT_LOG": Other}):
        assert type(get_event_log()) is Other
    assert type(get_event_log()) is DatabaseLog
    assert issubclass(DatabaseLog, EventLog)


def test_offsets_count_from_one_in_each_topic():
    first = [append("a", "message", str(n)) for n in range(3)]
    other = append("b", "joined", "{}")
    assert [event.offset for event in first] == [1, 2, 3]
    assert len({event.epoch for event in first}) == 1
    assert other == Event("b", "joined", "{}", other.epoch, 1)
    assert other.epoch != first[0].epoch


def test_names_that_differ_by_their_case_are_two_topics():
    for data, topic in enumerate(("room.a", "room.A")):
        assert append(topic, "message", str(data)).offset == 1
        assert [event.data for event in read(topic, START).events] == [str(data)]


def test_aappend_is_durable_when_it_returns():
    event = async_to_sync(aappend)(NewEvent("a", "message", "1"))
    assert (event.offset, offsets("a")) == (1, [1])


@pytest.mark.parametrize(
    "data", ["a\0b", "žluť 🐎 \u2028", {"": None}, [], "", 10**30, "x" * 60_000], ids=repr
)
def test_what_is_stored_is_what_is_read(data):
    text = encode_data(data, 65_536)
    event = append("a", "ž" * 64, text)
    assert read("a", START).events == [event]
    assert event.data == text


def test_a_rolled_back_append_leaves_no_gap():
    append("a", "message", "1")
    with transaction.atomic():
        assert append("a", "message", "2").offset == 2
        append("new", "message", "1")
        transaction.set_rollback(True)
    assert append("a", "message", "3").offset == 2
    assert append("new", "message", "1").offset == 1
    assert [event.data for event in read("a", START).events] == ["1", "3"]


def test_a_rolled_back_savepoint_leaves_no_gap():
    with transaction.atomic():
        append("a", "message", "1")
        with transaction.atomic():
            append("a", "message", "2")
            transaction.set_rollback(True)
        append("a", "message", "3")
    assert [(e.offset, e.data) for e in read("a", START).events] == [(1, "1"), (2, "3")]


def test_concurrent_publishers_leave_no_gap_and_no_duplicate():
    threads, each = 4, 25
    start = threading.Barrier(threads)

    def publish() -> None:
        start.wait()  # all of them find the topic missing
        for _ in range(each):
            append("a", "message", "1")

    with Threads(threads) as run:
        for _ in range(threads):
            run.start(publish)
    assert offsets("a") == list(range(1, threads * each + 1))
    assert models.Topic.objects.filter(name="a").count() == 1


def test_events_become_visible_in_order():
    """A reader never sees an offset before the ones below it, whoever commits first."""
    threads, each = 3, 15
    start = threading.Barrier(threads + 1)
    done = threading.Event()
    looks: list[int] = []

    def publish(hold: float) -> None:
        connection.ensure_connection()
        start.wait(20)  # the reader has its connection too, and looks
        for _ in range(each):
            with transaction.atomic():
                append("a", "message", "1")
                time.sleep(hold)  # the transaction goes on after its append

    def watch() -> None:
        position, seen = START, 0
        assert log._read("a", position, 1_000).events == []
        start.wait(20)
        while not done.is_set() or seen < threads * each:
            page = log._read("a", position, 1_000)
            assert [event.offset for event in page.events] == list(
                range(seen + 1, seen + 1 + len(page.events))
            )
            if page.events:
                looks.append(len(page.events))
                position, seen = page.position, page.events[-1].offset

    with Threads(threads + 1) as run:
        run.start(watch)
        with Threads(threads) as publishers:
            for hold in (0, 0.004, 0.008):
                publishers.start(publish, hold)
        done.set()
    assert sum(looks) == threads * each
    assert len(looks) > 5, "the reader did not look in between"


def test_a_publisher_waits_for_the_one_before_it():
    append("a", "message", "0")
    appended, second_done = threading.Event(), threading.Event()
    order = []

    def first() -> None:
        with transaction.atomic():
            append("a", "message", "1")
            appended.set()
            # Were the topic not locked, the other would be done long before.
            assert not second_done.wait(0.3)
            order.append("first")

    def second() -> None:
        assert appended.wait(10)
        assert append("a", "message", "2").offset == 3
        order.append("second")
        second_done.set()

    with Threads(2) as run:
        run.start(first)
        run.start(second)
    assert order == ["first", "second"]


def test_a_publisher_takes_over_a_topic_whose_maker_rolls_back():
    appended = threading.Event()

    def first() -> None:
        with transaction.atomic():
            append("a", "message", "1")
            appended.set()
            time.sleep(0.2)  # the other one comes to the lock, or comes later: both have to work
            transaction.set_rollback(True)

    def second() -> None:
        assert appended.wait(10)
        assert append("a", "message", "2").offset == 1

    with Threads(2) as run:
        run.start(first)
        run.start(second)
    assert [event.data for event in read("a", START).events] == ["2"]


APPEND_MANY = """
from realtime.eventlog import get_event_log, writer
from realtime.eventlog.base import NewEvent
for _ in range(40):
    get_event_log().append([NewEvent("a", "message", "1")])
"""
LIST_OFFSETS = """
from realtime.models import Event
print(*Event.objects.order_by("offset").values_list("offset", flat=True))
"""


def test_publishers_in_processes_of_their_own(site):
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-c"]
    running = [
        subprocess.Popen([*command, APPEND_MANY], cwd=ROOT, env=environment(site)) for _ in range(2)
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    listed = manage("shell", "--no-imports", "-c", LIST_OFFSETS, env=site)
    assert listed.split() == [str(n) for n in range(1, 81)]


# -- heads


def test_heads():
    epoch, other = fill("a", 3), fill("b", 1)
    models.Topic.objects.create(name="empty")
    heads = async_to_sync(log.heads)(["a", "b", "empty", "unknown"])
    assert heads == {"a": Position(epoch, 3), "b": Position(other, 1)}
    assert async_to_sync(log.heads)([]) == {}


# -- read


EPOCH = "the topic's"


@pytest.mark.parametrize(
    ("after", "found", "position"),
    [
        (OLDEST, [6, 7, 8], (EPOCH, 8)),
        ((EPOCH, 5), [6, 7, 8], (EPOCH, 8)),
        ((EPOCH, 7), [8], (EPOCH, 8)),
        ((EPOCH, 8), [], (EPOCH, 8)),
        ((EPOCH, 4), None, None),
        ((EPOCH, 0), None, None),
        (START, None, None),
        ((EPOCH, 9), None, None),
        ((EPOCH, 2**63 - 1), None, None),
        (("other", 5), None, None),
        (("other", 8), None, None),
        (("other", 0), None, None),
    ],
    ids=str,
)
def test_read_after_the_first_five_of_eight_were_pruned(after, found, position):
    check_reads(fill("a", 8), 5, after, found, position)


@pytest.mark.parametrize(
    ("after", "found", "position"),
    [
        (OLDEST, [], (EPOCH, 3)),
        ((EPOCH, 3), [], (EPOCH, 3)),
        ((EPOCH, 2), None, None),
        ((EPOCH, 4), None, None),
        (START, None, None),
        (("other", 3), None, None),
    ],
    ids=str,
)
def test_read_after_all_three_were_pruned(after, found, position):
    check_reads(fill("a", 3), 3, after, found, position)


def check_reads(epoch, pruned, after, found, position):
    def own(position):
        return Position(epoch if position[0] == EPOCH else position[0], position[1])

    forget("a", pruned)
    start = after if isinstance(after, Position) else own(after)
    if found is None:
        with pytest.raises(HistoryGone, match="no longer holds what followed"):
            read("a", start)
    else:
        page = read("a", start)
        assert [event.offset for event in page.events] == found
        assert page.position == own(position)
        assert {event.epoch for event in page.events} <= {epoch}


@pytest.mark.parametrize("name", ["unknown", "empty"])
def test_read_a_topic_without_events(name):
    models.Topic.objects.create(name="empty")
    assert read(name, OLDEST) == Page([], START)
    assert read(name, START) == Page([], START)
    for gone in (Position("other", 0), Position("other", 3)):
        with pytest.raises(HistoryGone):
            read(name, gone)


def test_read_from_the_start_of_a_topic_that_was_born_meanwhile():
    fill("a", 2)
    assert [event.offset for event in read("a", START).events] == [1, 2]


def test_a_topic_that_was_made_anew_has_another_history():
    old = fill("a", 3)
    models.Topic.objects.all().delete()
    fill("a", 5)
    with pytest.raises(HistoryGone):
        read("a", Position(old, 3))
    assert len(read("a", OLDEST).events) == 5


def test_pages_by_events():
    epoch = fill("a", 5)
    pages, position = [], START
    while (page := read("a", position, 2)).events:
        pages.append([event.offset for event in page.events])
        position = page.position
    assert pages == [[1, 2], [3, 4], [5]]
    assert position == Position(epoch, 5)


@pytest.mark.parametrize(
    ("data", "limit", "pages"),
    [
        (['"aa"'] * 4, 8, [[1, 2], [3, 4]]),
        (['"aa"'] * 4, 7, [[1], [2], [3], [4]]),
        (['"aa"', '"' + "b" * 50 + '"', '"c"'], 8, [[1], [2], [3]]),
        (['"ž"'] * 4, 8, [[1, 2], [3, 4]]),
        (['"🐎"'] * 4, 11, [[1], [2], [3], [4]]),
    ],
    ids=["fits", "one byte less", "one too large", "2 bytes each", "4 bytes each"],
)
def test_pages_by_bytes(data, limit, pages):
    for text in data:
        append("a", "message", text)
    found, position = [], START
    with override_settings(REALTIME={"LOG_PAGE_BYTES": limit}):
        while (page := read("a", position)).events:
            found.append([event.offset for event in page.events])
            position = page.position
    assert found == pages


def test_a_read_has_an_event_appended_between_its_two_queries():
    epoch = fill("a", 2)
    with after_first_call(DatabaseLog, "_events", lambda: fill("a", 1)):
        page = log._read("a", Position(epoch, 2), 10)
    assert [event.offset for event in page.events] == [3]


def test_a_position_at_the_end_of_all_numbers_is_out_of_reach():
    epoch = fill("a", 2)
    with pytest.raises(HistoryGone):
        log._read("a", Position(epoch, 2**63 - 1), 200)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="a plan of PostgreSQL's")
def test_a_page_of_a_long_history_does_not_read_all_of_it():
    """Without statistics, which a new table has none of."""
    epoch = append("a", "message", "0").epoch
    for _ in range(20):
        log.append([NewEvent("a", "message", "1")] * 500)
    with CaptureQueriesContext(connection) as captured:
        assert len(log._read("a", Position(epoch, 100), 50).events) == 50
    (query,) = captured
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query['sql']}")
        (found,) = cursor.fetchone()
    rows = json.dumps(found if isinstance(found, list) else json.loads(found))
    most = max(float(number) for number in re.findall(r'"Actual Rows": ([\d.]+)', rows))
    assert most <= 50, "it looks at more than it gives"


def test_a_read_has_a_first_event_appended_between_its_two_queries():
    with after_first_call(DatabaseLog, "_events", lambda: fill("a", 1)):
        page = log._read("a", START, 10)
    assert [event.offset for event in page.events] == [1]


@pytest.mark.parametrize("before", [0, 2])
def test_a_read_from_the_oldest_has_an_event_appended_between_its_queries(before):
    fill("a", before) if before else None
    with after_first_call(DatabaseLog, "_heads", lambda: fill("a", 1)):
        page = log._read("a", OLDEST, 10)
    assert page.events[-1].offset == before + 1
    assert page.position == page.events[-1].position


def test_a_read_from_the_oldest_skips_nothing_when_all_is_pruned_between_its_queries():
    epoch = fill("a", 2)

    def prune_and_append() -> None:
        forget("a", 2)
        fill("a", 1)

    with after_first_call(DatabaseLog, "_heads", prune_and_append):
        page = log._read("a", OLDEST, 10)
    assert page == Page(page.events, Position(epoch, 3))
    assert [event.offset for event in page.events] == [3]


def test_a_read_notices_what_is_appended_and_pruned_between_its_two_queries():
    epoch = fill("a", 2)

    def append_and_prune() -> None:
        fill("a", 2)
        forget("a", 4)

    with after_first_call(DatabaseLog, "_events", append_and_prune), pytest.raises(HistoryGone):
        log._read("a", Position(epoch, 2), 10)


def test_a_batch_is_numbered_by_topic_in_the_order_it_was_given():
    append("b", "message", "0")
    given = [("b", "x", "1"), ("a", "y", "2"), ("b", "z", "3"), ("new", "x", "4"), ("a", "x", "5")]
    events = log.append([NewEvent(*each) for each in given])
    assert [(event.topic, event.type, event.data) for event in events] == given
    assert [event.offset for event in events] == [2, 1, 3, 1, 2]
    for topic in ("a", "b", "new"):
        page = read(topic, OLDEST)
        wanted = [event for event in events if event.topic == topic]
        assert page.events[-len(wanted) :] == wanted


def test_a_batch_on_one_topic_takes_its_lock_once():
    append("a", "message", "0")
    with CaptureQueriesContext(connection) as captured:
        log.append([NewEvent("a", "message", str(number)) for number in range(20)])
    assert sum(query["sql"].startswith("UPDATE") for query in captured) == 1
    assert not [query for query in captured if "SAVEPOINT" in query["sql"]]
    assert offsets("a") == list(range(1, 22))


def test_batches_of_the_same_topics_in_any_order_do_not_wait_for_each_other():
    topics = [f"topic.{number}" for number in range(20)]
    forth = [NewEvent(topic, "message", "1") for topic in topics]
    start = threading.Barrier(2)

    def publish(batch: list[NewEvent]) -> None:
        start.wait()
        for _ in range(10):
            log.append(batch)  # a deadlock would be an error

    log.append(forth)
    with Threads(2) as run:
        run.start(publish, forth)
        run.start(publish, forth[::-1])
    assert all(offsets(topic) == list(range(1, 22)) for topic in topics)
    with CaptureQueriesContext(connection) as captured:  # also where one writer locks them all
        log.append(forth[::-1])
    updates = [query["sql"] for query in captured if query["sql"].startswith("UPDATE")]
    assert [topic for update in updates for topic in topics if f"'{topic}'" in update] == sorted(
        topics
    )


def test_a_batch_is_stored_whole_or_not_at_all():
    append("a", "message", "0")
    with pytest.raises(Exception, match=r"(?i)null"):
        log.append([NewEvent("a", "message", "1"), NewEvent("a", None, "2")])  # type: ignore[list-item]
    assert offsets("a") == [1]
    assert append("a", "message", "3").offset == 2


# -- several publishers at once


def test_publishers_that_come_together_share_a_transaction():
    fill("a", 1)
    with failing_once(writer, "insert", None) as inserts:
        events = append_together(*(message("a", number) for number in range(5)))
    assert [event.offset for event in events] == [2, 3, 4, 5, 6]
    assert len(inserts) == 1


def test_one_bad_event_does_not_take_the_others_with_it():
    given = [message("a", number) for number in range(7)]
    given[3] = NewEvent("a", None, "3")  # type: ignore[arg-type]
    answers = append_together(*given)
    assert isinstance(answers.pop(3), IntegrityError)
    assert [answer.data for answer in answers] == ["0", "1", "2", "4", "5", "6"]
    assert [answer.offset for answer in answers] == [1, 2, 3, 4, 5, 6]
    assert read("a", START).events == answers


@pytest.mark.parametrize("error", [OperationalError("lost"), InterfaceError("closed")], ids=repr)
def test_what_was_lost_before_the_commit_is_stored_once(error):
    fill("a", 1)
    fill("b", 1)
    with failing_once(writer, "insert", error) as inserts:
        events = append_together(message("a", 1), message("b", 2))
    assert [event.offset for event in events] == [2, 2]
    assert offsets("a") == offsets("b") == [1, 2]
    assert len(inserts) == 2


def test_an_error_twice_before_the_commit_reaches_every_publisher():
    with patch.object(writer, "insert", side_effect=OperationalError("down")) as insert:
        answers = append_together(message("a", 1), message("b", 2))
    assert [str(answer) for answer in answers] == ["down", "down"]
    assert insert.call_count == 2


@pytest.mark.parametrize("error", [None, OperationalError("disk full")], ids=repr)
def test_who_asks_whether_an_event_can_be_stored_waits_for_those_before(error):
    async def main() -> list[object]:
        asked = (log.check_writable() for _ in range(2))
        appended = (aappend(message("a", number)) for number in range(2))
        return await asyncio.gather(
            aappend(message("a", 0)), *asked, *appended, return_exceptions=True
        )

    inserts = []

    def insert(new: writer.Append) -> None:
        inserts.append(len(new.batch))
        writer_insert(new)

    fill("a", 1)
    writer_insert = writer.insert
    with (
        patch.object(writer, "insert", insert),
        patch("realtime.eventlog.database.change_row", side_effect=error) as change_row,
    ):
        first, *asked, second, third = asyncio.run(main())
    assert asked == [error, error]
    assert [event.offset for event in (first, second, third)] == [2, 3, 4]
    assert sum(inserts) == 3
    assert len(inserts) <= 2
    assert change_row.call_count == (1 if error is None else 2)


def test_whether_an_event_can_be_stored_is_found_out_by_a_change():
    async_to_sync(log.check_writable)()
    epoch = models.Topic.objects.get().epoch
    async_to_sync(log.check_writable)()
    topic = models.Topic.objects.get()
    assert topic.epoch != epoch
    assert topic.head == 0
    with pytest.raises(InvalidTopic):
        validate_topic(topic.name)


def test_what_follows_an_append_may_fail(caplog):
    def fail(events: Sequence[Event]) -> None:
        raise ZeroDivisionError

    async def main() -> list[list[Event]]:
        calls = [log.aappend([message("a", 1)], fail), log.aappend([message("a", 2)])]
        return await asyncio.gather(*calls)

    assert [event.offset for [event] in asyncio.run(main())] == [1, 2]
    assert offsets("a") == [1, 2]
    assert "ZeroDivisionError" in caplog.text


def test_metadata_is_kept_and_read_beside_rows_without():
    meta = '{"sender":{"id":1,"username":"ž"}}'
    new = [NewEvent("a", "message", "1"), NewEvent("a", "message", "2", meta)]
    appended = log.append(new)
    assert [event.meta for event in appended] == [None, meta]
    assert read("a", OLDEST).events == appended


@override_settings(REALTIME={"LOG_PAGE_BYTES": 50})
def test_a_page_is_bounded_with_its_metadata():
    log.append([NewEvent("a", "message", "1", '{"x":"' + "x" * 20 + '"}')] * 3)
    assert len(read("a", OLDEST).events) == 1


def test_a_new_epoch_of_all_counts_topics_alone():
    """Two rows of the log's own stand beside them."""
    append("a", "message", "1")
    async_to_sync(log.check_writable)()
    log.prune_in_turn(60)
    assert log.start_epoch() == 1


@override_settings(DATABASE_ROUTERS=[ReplicaForReads()], REALTIME={"RETENTION_EVENTS": 1})
def test_the_log_is_read_where_it_is_written():
    append("a", "message", "1")
    (event,) = append_together(message("a", 2))
    assert isinstance(event, Event)
    assert async_to_sync(log.heads)(["a"]) == {"a": event.position}
    for after in (OLDEST, START, event.position):
        assert read("a", after).position == event.position
    assert log.prune() == {"a": 1}
    assert log.start_epoch() == 1
    assert async_to_sync(log.heads)(["a"])["a"].epoch != event.epoch
