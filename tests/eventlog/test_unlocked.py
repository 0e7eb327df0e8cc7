"""Topics that somebody has locked keep no other topic's publishers waiting."""

import asyncio

import pytest
from django.db import IntegrityError, connection, connections

from realtime import models
from realtime.eventlog import writer
from realtime.eventlog.base import NewEvent
from realtime.events.event import Event
from realtime.utils.threads import DATABASE

from .support import Threads, aappend, append_together, fill, locked, message, offsets

pytestmark = pytest.mark.django_db(transaction=True)
has_row_locks = pytest.mark.skipif(
    connection.vendor == "sqlite", reason="one writer locks all of SQLite"
)


@pytest.mark.skipif(connection.vendor == "mysql", reason="it has no UPDATE with RETURNING")
def test_topics_and_events_take_as_many_statements_for_many_as_for_one(django_assert_num_queries):
    topics = [f"topic.{n}" for n in range(20)]
    for topic in topics:
        fill(topic, 1)
    # BEGIN, the topics, their events, COMMIT; PostgreSQL takes topics and events at once.
    with django_assert_num_queries(3 if connection.vendor == "postgresql" else 4):
        events = writer.append_unlocked([message(topic, n) for n, topic in enumerate(topics * 2)])
    assert [event and event.offset for event in events] == [2] * 20 + [3] * 20


@pytest.mark.parametrize("key", [None, "a key"])
def test_what_is_stored_is_what_was_given(key):
    texts = ['"\\u0000"', '"\'"', '"%s {} \u00e9\U0001f600"', "{}", "null", '"a\\\\b\\n"']
    types = ["message", "it's", '"', "\\", "null", "\u20ac"]
    topics = ["null", "a", "null", "A.b-c_d", "a", "null"]
    given = [
        NewEvent(topic, type, data, None if n % 2 else data, key and f"{key} {n}")
        for n, (topic, type, data) in enumerate(zip(topics, types, texts, strict=True))
    ]
    events = writer.append_unlocked(given)
    assert [event and event.offset for event in events] == [1, 1, 2, 1, 2, 3]
    stored = {
        (row.topic.name, row.offset): (row.type, row.data, row.meta)
        for row in models.Event.objects.select_related("topic")
    }
    assert stored == {
        (event.topic, event.offset): (new.type, new.data, new.meta)
        for event, new in zip(events, given, strict=True)
        if event is not None
    }


def test_one_event_that_is_refused_takes_all_of_its_statement_with_it():
    fill("a", 1)
    with pytest.raises(IntegrityError):
        writer.append_unlocked([message("a", 1), NewEvent("b", None, "1")])  # type: ignore[arg-type]
    assert offsets("a") == [1]
    assert models.Topic.objects.get(name="a").head == 1


@has_row_locks
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "old"])
def test_only_who_publishes_to_a_locked_topic_waits(is_new):
    # Names of its own: an insert locks what is beside rows of its name that are deleted and still
    # there, on MariaDB.
    held = f"held.{is_new}"
    fill("free", 1)
    if not is_new:
        fill(held, 1)

    async def play() -> None:
        with locked(held):
            waiting = [asyncio.create_task(aappend(message(held, n))) for n in range(5)]
            for n in range(20):  # one after the other, and all would come behind those
                event = await asyncio.wait_for(aappend(message("free", n)), 20)
                assert event.offset == n + 2
            assert not any(task.done() for task in waiting)
        last = 1 if is_new else 2
        found = [event.offset for event in await asyncio.gather(*waiting)]
        assert sorted(found) == list(range(last + 1, last + 6))

    asyncio.run(play())
    DATABASE.close()
    assert offsets("free") == list(range(1, 22))
    assert offsets(held) == list(range(1, 7 if is_new else 8))


@has_row_locks
def test_what_is_free_of_a_batch_is_stored_with_one_statement_for_its_topics(
    django_assert_num_queries,
):
    for topic in "abc":
        fill(topic, 1)
    batch = [message(topic, n) for n, topic in enumerate("cabacx")]
    with locked("b"):
        events = writer.append_unlocked(batch)
    assert [event and event.position.offset for event in events] == [2, 2, None, 3, 3, 1]
    assert (offsets("a"), offsets("b"), offsets("c"), offsets("x")) == (
        [1, 2, 3],
        [1, 2],
        [1, 2, 3],
        [1],
    )
    with locked("a", "b"):
        assert writer.append_unlocked([message("a", 1), message("b", 2)]) == [None, None]
    if connection.vendor == "postgresql":
        with django_assert_num_queries(3):  # BEGIN, topics and their events, COMMIT
            writer.append_unlocked([message(topic, 1) for topic in "abc"])


@has_row_locks
def test_many_writers_at_once_leave_no_gap():
    for topic in "abcd":
        fill(topic, 1)
    found: list[Event] = []

    def publish(number: int) -> None:
        for n in range(20):
            found.extend(append_together(*(message(topic, n) for topic in "abcd" * 2)))

    with Threads(4) as threads:
        for number in range(4):
            threads.start(publish, number)
    DATABASE.close()
    connections.close_all()
    for topic in "abcd":
        assert offsets(topic) == list(range(1, 162))
    assert len({(event.topic, event.offset) for event in found}) == 640
    assert models.Topic.objects.filter(head=161).count() == 4
