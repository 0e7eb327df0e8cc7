"""`realtime.eventlog.changes`, and that all logs answer alike."""

from typing import Any

import pytest
from asgiref.sync import async_to_sync

from realtime import models
from realtime.eventlog.base import EventLog, NewEvent
from realtime.eventlog.database import DatabaseLog

from .support import append

pytestmark = pytest.mark.django_db(transaction=True)


class Asking:
    """Asks a log for what has changed, again and again."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.mark: Any = None

    def put(self, *topics: str) -> None:
        for topic in topics:
            self.log.append([NewEvent(topic, "message", "1")])

    def changes(self, limit: int = 10) -> dict[str, int] | None:
        """Offsets by topic, as far as they are not of the question before."""
        heads, self.mark = async_to_sync(self.log.changes)(self.mark, limit)
        if heads is None:
            return None
        assert dict(heads) == dict(async_to_sync(self.log.heads)(list(heads)))
        return {topic: head.offset for topic, head in sorted(heads.items())}


@pytest.fixture
def asking(log) -> Asking:
    return Asking(log)


@pytest.fixture
def asking_database() -> Asking:
    return Asking(DatabaseLog())


def test_the_newest_of_each_topic_that_has_changed(asking):
    asking.put("a", "b", "c")
    assert asking.changes() is None
    assert asking.changes() == {}
    asking.put("a", "b", "a")
    assert asking.changes() == {"a": 3, "b": 2}


def test_where_nothing_is_stored_nothing_changes(asking):
    assert asking.changes() is None
    assert asking.changes() == {}
    asking.put("a")
    assert asking.changes() == {"a": 1}


def test_more_than_the_limit_can_not_be_told_once(asking):
    asking.changes()
    asking.put("a", "b")
    assert asking.changes(limit=1) is None
    for _ in range(2):
        last = asking.changes(limit=2)
    assert last == {}


def test_what_commits_after_a_newer_one_was_seen_is_found(asking_database):
    """Keys are given before the commit: those of a transaction come late."""
    append("a", "message", "1")
    asking_database.changes()
    append("late", "message", "1")
    append("b", "message", "1")
    late = models.Event.objects.get(topic__name="late")
    models.Event.objects.filter(pk=late.pk).delete()
    assert asking_database.changes() == {"b": 1}
    late.save(force_insert=True)
    assert asking_database.changes() == {"b": 1, "late": 1}
    assert asking_database.changes() == {}


def test_of_a_database_that_was_set_back_nothing_can_be_told(asking_database):
    asking_database.put("a", "b")
    asking_database.changes()
    models.Event.objects.filter(topic__name="b").delete()
    assert asking_database.changes() is None
    assert asking_database.changes() == {}


def test_nothing_new_costs_one_statement(asking_database, django_assert_num_queries):
    from realtime.eventlog.changes import find_changes

    asking_database.put("a")
    mark = find_changes(None, 10).mark
    with django_assert_num_queries(1):
        assert find_changes(mark, 10) == ({}, mark)
