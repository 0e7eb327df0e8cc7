"""A topic that nobody has published to yet waits for no other, and for whoever makes it too."""

import asyncio
from unittest.mock import patch

import pytest
from django.db import OperationalError, connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.conf import settings
from realtime.eventlog import new_topics, writer
from realtime.utils.threads import DATABASE

from .support import aappend, failing_once, fill, locked, message, offsets

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer locks all of SQLite"),
]
LOCK_WAIT = {
    "postgresql": "SELECT current_setting('lock_timeout')",
    "mysql": "SELECT @@innodb_lock_wait_timeout",
}


def lock_wait() -> object:
    with connection.cursor() as cursor:
        cursor.execute(LOCK_WAIT[connection.vendor])
        return cursor.fetchone()


def test_a_new_topic_waits_for_no_topic_that_others_hold():
    half = settings.DATABASE_THREADS // 2
    held = [f"full.{n}" for n in range(half)]
    for topic in held:
        fill(topic, 1)

    async def play() -> None:
        # One of those held has no row that anybody else sees yet.
        with locked(*held, "full.new"):
            waiting = [asyncio.create_task(aappend(message(topic, 1))) for topic in held]
            for n in range(3):
                waiting.append(asyncio.create_task(aappend(message("full.new", n))))
                event = await asyncio.wait_for(aappend(message(f"fresh.{n}", 1)), 20)
                assert event.offset == 1
            assert not any(task.done() for task in waiting)
        found = [event.offset for event in await asyncio.gather(*waiting)]
        assert found[:half] == [3] * half
        assert sorted(found[half:]) == [2, 3, 4]

    asyncio.run(play())
    DATABASE.close()
    assert offsets("fresh.0") == [1]
    assert offsets("full.new") == [1, 2, 3, 4]


def test_what_others_are_making_is_left_out_at_once():
    batch = [message(topic, 1) for topic in ("begun.b", "begun.a", "begun.c")]
    with locked("begun.b"):
        events = writer.append_unlocked(batch)
    assert [event and event.offset for event in events] == [None, 1, 1]
    (event,) = writer.append_unlocked(batch[:1])
    assert event.offset == 2


def test_after_it_statements_wait_for_locks_as_before():
    with connection.cursor() as cursor:
        cursor.execute(LOCK_WAIT[connection.vendor])
        before = cursor.fetchone()
        with locked("hasty.a"), transaction.atomic():
            assert new_topics.make_missing(cursor, ["hasty.a", "hasty.b"])
            cursor.execute(LOCK_WAIT[connection.vendor])
            assert cursor.fetchone() == before


def test_after_a_commit_that_was_not_answered_statements_wait_for_locks_as_before():
    before = lock_wait()
    lost = OperationalError("server closed the connection unexpectedly")
    with failing_once(BaseDatabaseWrapper, "_commit", lost):
        writer.append([message("lost", 1)])
    assert lock_wait() == before


def test_another_error_than_that_of_a_lock_is_raised():
    lost = OperationalError("server closed the connection unexpectedly")
    with (
        patch.object(new_topics, "make_topic", side_effect=lost),
        pytest.raises(OperationalError, match="unexpectedly"),
    ):
        writer.append_unlocked([message("unmade", 1)])
