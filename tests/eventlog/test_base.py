"""`realtime.eventlog.base`: what every log has to do, and each of them does."""

import asyncio
import json
import time

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.test import override_settings

from realtime.eventlog.base import EventLog, NewEvent, Page
from realtime.eventlog.memory import MemoryLog
from realtime.events.event import Event
from realtime.events.position import OLDEST, START, Position
from realtime.exceptions import HistoryGone
from realtime.utils.threads import DATABASE

from ..support.attempts import three_tries
from .support import Threads

pytestmark = pytest.mark.django_db(transaction=True)
EPOCH = "the topic's"
POSITIONS = [
    OLDEST,
    START,
    *(Position(EPOCH, offset) for offset in (0, 2, 3, 4, 5, 6, 2**63 - 1)),
    *(Position("other", offset) for offset in (0, 3, 5)),
]


def answer(log: EventLog, after: Position, limit: int = 1_000, topic: str = "a"):
    """Offsets and position that a read gives, with the topic's epoch left out; or "gone"."""
    epoch = async_to_sync(log.heads)([topic]).get(topic, START).epoch
    own = Position(epoch if after.epoch == EPOCH else after.epoch, after.offset)
    try:
        page = async_to_sync(log.read)(topic, own, limit)
    except HistoryGone:
        return "gone"
    where = page.position
    return (
        [event.offset for event in page.events],
        (EPOCH if where.epoch == epoch else where.epoch, where.offset),
    )


def fill(log: EventLog, count: int, keep: int | None = None, topic: str = "a") -> EventLog:
    for n in range(count):
        log.append([NewEvent(topic, "message", str(n))])
    if keep is not None:
        with override_settings(REALTIME={"RETENTION_EVENTS": keep}):
            assert log.prune() == {topic: count - keep}
            assert log.prune() == {}
    return log


@pytest.mark.parametrize("after", POSITIONS, ids=str)
@pytest.mark.parametrize(("count", "keep"), [(0, None), (5, None), (5, 2)])
def test_a_read_answers_as_that_of_a_log_in_memory(log, count, keep, after):
    """Which is the simplest one, and right by what `test_database` says of the one there."""
    assert answer(fill(log, count, keep), after) == answer(fill(MemoryLog(), count, keep), after)


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
    events += async_to_sync(log.aappend)([NewEvent("a", "message", "2")])
    assert [(event.topic, event.offset) for event in events] == [
        ("a", 1),
        ("b", 1),
        ("a", 2),
        ("a", 3),
    ]
    heads = async_to_sync(log.heads)(["a", "b", "unknown"])
    assert heads == {"a": events[3].position, "b": events[1].position}
    assert async_to_sync(log.read)("unknown", OLDEST, 1) == Page([], START)


@pytest.mark.parametrize("data", ["a\0b", "žluť 🐎 \u2028", "", 10**30, "x" * 30_000], ids=ascii)
def test_what_is_stored_is_what_is_read(log, data):
    new = NewEvent("a", "ž" * 64, json.dumps(data), '{"sender":"ž"}')
    [event] = log.append([new, new._replace(meta=None)])[:1]
    assert (event.type, event.data, event.meta) == new[1:4]
    found = async_to_sync(log.read)("a", START, 10).events
    assert found[0] == event
    assert found[1].meta is None


def test_concurrent_publishers_leave_no_gap_and_no_duplicate(log):
    found = []

    def publish(number: int) -> None:
        for n in range(10):
            found.extend(log.append([NewEvent("a", "message", f"[{number},{n}]")]))

    with Threads(4) as threads:
        for number in range(4):
            threads.start(publish, number)
    DATABASE.close()
    assert sorted(event.offset for event in found) == list(range(1, 41))
    page = async_to_sync(log.read)("a", START, 100)
    assert {event.data for event in page.events} == {event.data for event in found}
    for number in range(4):  # each one's own in order
        own = [e.data for e in page.events if e.data.startswith(f"[{number},")]
        assert own == [f"[{number},{n}]" for n in range(10)]


def test_publishers_in_one_loop_are_told_each_of_its_own(log):
    async def main() -> list[list[Event]]:
        return await asyncio.gather(
            *(
                log.aappend([NewEvent(topic, "message", str(n))])
                for n in range(30)
                for topic in "ab"
            )
        )

    answers = asyncio.run(main())
    DATABASE.close()
    assert [events[0].data for events in answers] == [str(n) for n in range(30) for _ in "ab"]
    for topic in "ab":
        offsets = [event.offset for [event] in answers if event.topic == topic]
        assert sorted(offsets) == list(range(1, 31))


def test_a_new_epoch_keeps_the_events_and_makes_old_positions_void(log):
    fill(log, 3)
    before = async_to_sync(log.heads)(["a"])["a"]
    log.append([NewEvent("b", "message", "1")])
    assert log.start_epoch(["a", "unknown"]) == 1
    head = async_to_sync(log.heads)(["a"])["a"]
    assert (head.offset, head.epoch == before.epoch) == (3, False)
    with pytest.raises(HistoryGone):
        async_to_sync(log.read)("a", before, 1)
    [event] = log.append([NewEvent("a", "message", "4")])
    assert event.position == Position(head.epoch, 4)
    assert answer(log, OLDEST) == ([1, 2, 3, 4], (EPOCH, 4))
    assert log.start_epoch() == 2


@pytest.mark.parametrize("keep", [None, 3])
def test_events_are_dropped_by_age_and_what_is_kept_is_consecutive(log, keep):
    if isinstance(log, MemoryLog):
        pytest.skip("it keeps no age")
    topics = iter("abc")

    def drop() -> None:
        topic = next(topics)
        fill(log, 5, topic=topic)
        time.sleep(1.0)
        between = time.monotonic() - 0.5
        fill(log, 2, topic=topic)
        age = time.monotonic() - between
        with override_settings(REALTIME={"RETENTION_SECONDS": age, "RETENTION_EVENTS": keep}):
            assert log.prune().get(topic) == 5
            time.sleep(0.6)
            assert log.prune() == {topic: 2}
            assert log.prune() == {}
        assert answer(log, OLDEST, topic=topic) == ([], (EPOCH, 7))
        fill(log, 1, topic=topic)
        assert answer(log, OLDEST, topic=topic) == ([8], (EPOCH, 8))

    three_tries(drop)  # the last two expire half a second after they were appended


def test_one_process_prunes_in_turn(log):
    fill(log, 3)
    with override_settings(REALTIME={"RETENTION_EVENTS": 1}):
        assert log.prune_in_turn(60) == {"a": 2}
        fill(log, 1)
        if not isinstance(log, MemoryLog):
            assert log.prune_in_turn(60) == {}
        assert log.prune_in_turn(0.000_1) in ({"a": 1}, {})


def test_what_follows_an_append_is_called_with_its_events_and_fails_alone(log, caplog):
    told = []

    async def main() -> None:
        def then(events) -> None:
            told.extend(events)
            raise ValueError("of the site's own")

        if isinstance(log, MemoryLog):
            return
        [event] = await log.aappend([NewEvent("a", "message", "1")], then)
        assert told == [event]
        assert await log.aappend([]) == []

    asyncio.run(main())
    DATABASE.close()
    assert log.append([]) == []


def test_it_is_found_writable(log):
    async_to_sync(log.check_writable)()
    assert async_to_sync(log.heads)([]) == {}


@pytest.mark.parametrize("is_rolled_back", [False, True], ids=["commit", "rollback"])
def test_what_is_published_in_a_transaction_waits_for_its_commit(log, is_rolled_back):
    if not log.waits_for_commit:
        pytest.skip("it is stored at once")
    with transaction.atomic():
        [first] = log.append([NewEvent("a", "message", "1")])
        with transaction.atomic():
            log.append([NewEvent("a", "message", "2")])
            transaction.set_rollback(True)
        [last] = log.append([NewEvent("a", "message", "3")])
        transaction.set_rollback(is_rolled_back)
    found = async_to_sync(log.read)("a", OLDEST, 10).events
    assert [event.data for event in found] == ([] if is_rolled_back else ["1", "3"])
    if not is_rolled_back:
        assert [first.id, last.id] == [event.id for event in found]
