"""`realtime.eventlog.memory`: for apps' tests, so it has to answer as the database does."""

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings

from realtime.eventlog.base import EventLog, NewEvent, Page
from realtime.eventlog.database import DatabaseLog
from realtime.eventlog.memory import MemoryLog
from realtime.events.position import OLDEST, START, Position
from realtime.exceptions import HistoryGone

pytestmark = pytest.mark.django_db(transaction=True)
EPOCH = "the topic's"
POSITIONS = [
    OLDEST,
    START,
    *(Position(EPOCH, offset) for offset in (0, 2, 3, 4, 5, 6, 2**63 - 1)),
    *(Position("other", offset) for offset in (0, 3, 5)),
]


@pytest.fixture(params=[DatabaseLog, MemoryLog])
def log(request) -> EventLog:
    return request.param()


def answer(log: EventLog, after: Position, limit: int = 1_000):
    """Offsets and position that a read gives, with the topic's epoch left out; or "gone"."""
    epoch = async_to_sync(log.heads)(["a"]).get("a", START).epoch
    own = Position(epoch if after.epoch == EPOCH else after.epoch, after.offset)
    try:
        page = async_to_sync(log.read)("a", own, limit)
    except HistoryGone:
        return "gone"
    where = page.position
    return (
        [event.offset for event in page.events],
        (EPOCH if where.epoch == epoch else where.epoch, where.offset),
    )


def fill(log: EventLog, count: int, keep: int | None = None) -> EventLog:
    for n in range(count):
        log.append([NewEvent("a", "message", str(n))])
    if keep is not None:
        with override_settings(REALTIME={"RETENTION_EVENTS": keep}):
            assert log.prune() == {"a": count - keep}
            assert log.prune() == {}
    return log


@pytest.mark.parametrize("after", POSITIONS, ids=str)
@pytest.mark.parametrize(("count", "keep"), [(0, None), (5, None), (5, 2)])
def test_it_reads_as_the_database_does(after, count, keep):
    answers = [answer(fill(kind(), count, keep), after) for kind in (DatabaseLog, MemoryLog)]
    assert answers[0] == answers[1]


def test_pages(log):
    fill(log, 5)
    assert answer(log, START, 2) == ([1, 2], (EPOCH, 2))
    assert answer(log, Position(EPOCH, 2), 2) == ([3, 4], (EPOCH, 4))
    assert answer(log, Position(EPOCH, 4), 2) == ([5], (EPOCH, 5))


def test_pages_by_bytes(log):
    fill(log, 5)
    with override_settings(REALTIME={"LOG_PAGE_BYTES": 2}):
        assert answer(log, START) == ([1, 2], (EPOCH, 2))


def test_append_and_heads(log):
    events = log.append([NewEvent(topic, "message", "1") for topic in ("a", "b", "a")])
    events.append(async_to_sync(log.aappend)(NewEvent("a", "message", "2")))
    assert [(event.topic, event.offset) for event in events] == [
        ("a", 1),
        ("b", 1),
        ("a", 2),
        ("a", 3),
    ]
    heads = async_to_sync(log.heads)(["a", "b", "unknown"])
    assert heads == {"a": events[3].position, "b": events[1].position}
    assert async_to_sync(log.read)("unknown", OLDEST, 1) == Page([], START)


def test_events_returns_what_is_kept():
    log = fill(MemoryLog(), 3, keep=2)
    assert [event.data for event in log.events("a")] == ["1", "2"]
    assert log.events("unknown") == []


def test_on_commit_calls_at_once():
    called = []
    MemoryLog().on_commit(lambda: called.append(1))
    assert called == [1]
