"""Topics that somebody has locked keep no other topic's publishers waiting."""

import asyncio

import pytest
from django.db import connection, connections

from realtime import models
from realtime.eventlog import writer
from realtime.events.event import Event
from realtime.utils.threads import DATABASE

from .support import Threads, append_together, fill, locked, log, message, offsets

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer locks all of SQLite"),
]


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
            waiting = [asyncio.create_task(log.aappend(message(held, n))) for n in range(5)]
            for n in range(20):  # one after the other, and all would come behind those
                event = await asyncio.wait_for(log.aappend(message("free", n)), 20)
                assert event.offset == n + 2
            assert not any(task.done() for task in waiting)
        last = 1 if is_new else 2
        found = [event.offset for event in await asyncio.gather(*waiting)]
        assert sorted(found) == list(range(last + 1, last + 6))

    asyncio.run(play())
    DATABASE.close()
    assert offsets("free") == list(range(1, 22))
    assert offsets(held) == list(range(1, 7 if is_new else 8))


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
        with django_assert_num_queries(4):  # BEGIN, topics, events, COMMIT
            writer.append_unlocked([message(topic, 1) for topic in "abc"])


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
