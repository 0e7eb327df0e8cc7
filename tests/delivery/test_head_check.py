"""`realtime.delivery.head_check`: its cost grows with what is published, and it misses nothing."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import pytest

from realtime.delivery import head_check
from realtime.delivery.head_check import HeadCheck
from realtime.delivery.hub import Hub, get_hub, heads_checked
from realtime.eventlog.base import Changes
from realtime.events.position import START, Position
from realtime.exceptions import DatabaseUnavailable

from ..support.fakes import FaultyLog
from ..support.hubs import Reader, instantly, stage

TOPICS = [f"t{number}" for number in range(100)]


class CountingLog(FaultyLog):
    """Remembers what it was asked for."""

    can_tell = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def heads(self, topics: Sequence[str]) -> Mapping[str, Position]:
        self.asked += topics
        return await super().heads(topics)

    async def changes(self, mark: Any, limit: int) -> Changes:
        return await super().changes(mark if self.can_tell else None, limit)


def idle(
    test: Callable[[CountingLog, Hub, Reader], Coroutine[Any, Any, None]],
    log: CountingLog | None = None,
    **options: Any,
) -> None:
    """Run a test on a hub that has all topics, and is not new any more."""
    log = log or CountingLog()
    with stage(log=log, GROUP_REFRESH_SECONDS=1_000_000.0, **options):

        async def main() -> None:
            hub, reader = get_hub(), Reader()
            for topic in TOPICS:
                log.put(topic, "message", "0")
            feeds = [await hub.attach(topic, reader) for topic in TOPICS]
            await asyncio.sleep(10.5)
            log.asked.clear()
            await test(log, hub, reader)
            for feed in feeds:
                hub.detach(feed, reader)

        instantly(main())


@pytest.fixture(autouse=True)
def _many_topics(monkeypatch):
    monkeypatch.setattr(head_check, "FEW_TOPICS", 10)


def test_without_news_each_topic_is_compared_once_in_the_time_for_idle_ones():
    async def test(log: CountingLog, hub: Hub, reader: Reader) -> None:
        await asyncio.sleep(30)
        assert Counter(log.asked) == Counter(TOPICS)

    idle(test)


def test_what_nobody_announced_is_found_by_the_next_check_and_no_more_is_asked_for():
    async def test(log: CountingLog, hub: Hub, reader: Reader) -> None:
        for topic in ("t3", "t50", "elsewhere"):
            log.put(topic, "message", "1")
        await asyncio.sleep(2)
        assert sorted(event.topic for event in reader.got) == ["t3", "t50"]
        # Twice: they are joined anew, as if the bus had forgotten them, and compared after that.
        assert Counter(log.asked) == {"t3": 2, "t50": 2}

    idle(test, HEAD_CHECK_IDLE_SECONDS=1_000_000.0)


def test_what_was_announced_is_not_asked_for():
    async def test(log: CountingLog, hub: Hub, reader: Reader) -> None:
        hub.receive("t3", [log.put("t3", "message", "1")])
        await asyncio.sleep(2)
        assert [event.topic for event in reader.got] == ["t3"]
        assert log.asked == []

    idle(test, HEAD_CHECK_IDLE_SECONDS=1_000_000.0)


def test_what_the_log_can_not_tell_is_found_in_the_time_for_idle_topics():
    async def test(log: CountingLog, hub: Hub, reader: Reader) -> None:
        log.start_epoch(["t7"])
        await asyncio.sleep(30)
        assert hub.feeds["t7"].position == log.head("t7")

    idle(test)


def test_a_log_that_can_not_tell_is_asked_for_all():
    async def test(log: CountingLog, hub: Hub, reader: Reader) -> None:
        log.can_tell = False
        await asyncio.sleep(4)
        assert Counter(log.asked) == Counter(TOPICS * 2)

    idle(test)


def test_of_more_news_than_topics_all_are_asked_for():
    async def test(log: CountingLog, hub: Hub, reader: Reader) -> None:
        for number in range(len(TOPICS) + 1):
            log.put(f"elsewhere{number}", "message", "1")
        await asyncio.sleep(2)
        assert Counter(log.asked) == Counter(TOPICS)
        await asyncio.sleep(2)
        assert Counter(log.asked) == Counter(TOPICS)

    idle(test, HEAD_CHECK_IDLE_SECONDS=1_000_000.0)


def test_few_topics_are_all_asked_for_each_time(monkeypatch):
    monkeypatch.setattr(head_check, "FEW_TOPICS", len(TOPICS))

    async def test(log: CountingLog, hub: Hub, reader: Reader) -> None:
        await asyncio.sleep(4)
        assert Counter(log.asked) == Counter(TOPICS * 2)

    idle(test)


def test_after_a_check_that_failed_all_are_asked_for(caplog):
    async def test(log: CountingLog, hub: Hub, reader: Reader) -> None:
        log.failing = True
        log.put("t3", "message", "1")
        await asyncio.sleep(2)
        log.failing = False
        log.asked.clear()
        await asyncio.sleep(2)
        assert set(log.asked) == set(TOPICS)
        assert [event.topic for event in reader.got] == ["t3"]

    idle(test, HEAD_CHECK_IDLE_SECONDS=1_000_000.0)
    assert "Can't check the log's heads" in caplog.text


class LogInParts(CountingLog):
    """Of which the topics that end in 0 can't be asked for, for a while."""

    is_partly_away = False
    silent_seconds = 0.0  # until that is said

    def parts_of(self, topics: Sequence[str]) -> list[Sequence[str]]:
        away = [topic for topic in topics if topic.endswith("0")]
        return [away, [topic for topic in topics if topic not in away]]

    async def heads(self, topics: Sequence[str]) -> Mapping[str, Position]:
        if self.is_partly_away and any(topic.endswith("0") for topic in topics):
            await asyncio.sleep(self.silent_seconds)
            raise DatabaseUnavailable
        return await super().heads(topics)

    async def changes(self, mark: Any, limit: int) -> Changes:
        if self.is_partly_away:
            raise DatabaseUnavailable
        return await super().changes(mark, limit)


def test_where_a_part_of_the_log_is_away_what_was_missed_in_the_others_is_found():
    log, told = LogInParts(), []

    async def note(**kwargs: Any) -> None:
        told.append(kwargs)

    async def test(_: CountingLog, hub: Hub, reader: Reader) -> None:
        told.clear()
        log.is_partly_away = True
        for topic in ("t10", "t11"):
            log.put(topic, "message", "1")
        await asyncio.sleep(5)
        assert [event.topic for event in reader.got] == ["t11"]
        assert told  # what hangs on the check goes on, such as the outbox
        log.is_partly_away = False
        await asyncio.sleep(3)
        assert [event.topic for event in reader.got] == ["t11", "t10"]

    heads_checked.connect(note)
    try:
        idle(test, log, HEAD_CHECK_IDLE_SECONDS=1_000_000.0)
    finally:
        heads_checked.disconnect(note)


def test_a_part_of_the_log_that_is_silent_keeps_no_other_waiting():
    log = LogInParts()

    async def test(_: CountingLog, hub: Hub, reader: Reader) -> None:
        log.is_partly_away, log.silent_seconds = True, 1_000.0
        log.put("t11", "message", "1")
        await asyncio.sleep(5)
        assert [event.topic for event in reader.got] == ["t11"]

    idle(test, log, HEAD_CHECK_IDLE_SECONDS=1_000_000.0)


def test_what_is_requested_is_compared_soon_and_together():
    async def test(log: CountingLog, hub: Hub, reader: Reader) -> None:
        hub._head_check.request("t5")
        await asyncio.sleep(0.05)
        hub._head_check.request("t6")
        await asyncio.sleep(0.1)
        assert log.asked == ["t5", "t6"]
        hub._head_check.request()
        await asyncio.sleep(0.01)
        assert Counter(log.asked[2:]) == Counter(TOPICS)

    idle(test, HEAD_CHECK_IDLE_SECONDS=1_000_000.0)


def test_joining_a_topic_anew_has_that_one_compared_and_is_no_reason_to_do_it_again():
    async def test(log: CountingLog, hub: Hub, reader: Reader) -> None:
        log.put("t5", "message", "1")
        hub.bus.leave(["t5"])
        hub.bus.join(["t5"])
        await asyncio.sleep(1)
        assert log.asked == ["t5"]
        assert [event.topic for event in reader.got] == ["t5"]

    idle(test, HEAD_CHECK_IDLE_SECONDS=1_000_000.0)


class Compared(str):
    """A topic that counts how often one is compared with another."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


class Missed:
    """A feed that has missed something."""

    position = START

    def compare(self, head: Position, before: Position) -> bool:
        return True


@pytest.mark.parametrize("is_thorough", [True, False])
def test_where_all_topics_have_missed_something_each_is_looked_up_at_once(monkeypatch, is_thorough):
    monkeypatch.setattr(Compared, "times", 0)
    topics = [Compared(f"t{number}") for number in range(200)]
    log = CountingLog()
    log.can_tell = False
    with stage(log=log):
        check = HeadCheck({topic: Missed() for topic in topics})
        found = asyncio.run(check.find_missed(is_regular=True, is_thorough=is_thorough))
    assert len(found) == len(topics)
    assert Compared.times < 10 * len(topics)
