"""The feed: what it keeps, what it catches up with, and very many readers."""

import asyncio
import gc
import time
from collections.abc import Sequence

import pytest

from realtime.delivery.feed import Feed
from realtime.events.event import Event
from realtime.events.position import START, Position

from ..support.clients import eventually
from ..support.fakes import FaultyLog
from ..support.hubs import Reader, instantly, stage, turns


def test_a_feed_does_not_catch_up_before_it_has_started():
    # What it read then, its start would jump past or go back behind.
    with stage() as (_, log):

        async def main() -> None:
            reader, feed = Reader(), Feed("a")
            feed.fanout.add(reader)
            for _ in range(5):
                log.put("a", "message", "1")
            feed.catch_up()
            await turns()
            assert reader.got == []
            feed.start(Position("epoch001", 3))
            await turns()
            assert reader.offsets == [4, 5]
            feed.close()

        instantly(main())


def test_a_feed_compared_before_its_start_reads_the_log_later():
    feed = Feed("a")
    assert not feed.compare(Position("epoch", 5), START)
    assert feed._is_behind


class SetBackLog(FaultyLog):
    """A log that can lose events, and remembers who found that out."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[Event] = []

    def lose(self, topic: str, keep: int) -> None:
        self._heads[topic] = Position(self._heads[topic].epoch, keep)
        del self._kept[topic][keep:]

    async def end_epoch(self, event: Event) -> None:
        self.ended.append(event)
        self.start_epoch([event.topic])


def other(event: Event) -> Event:
    return Event(event.topic, event.type, '"other"', event.epoch, event.offset)


@pytest.mark.parametrize("is_authentic", [True, False])
@pytest.mark.parametrize("lag", [0, 3])
def test_another_event_at_a_known_offset_has_the_log_read(is_authentic, lag):
    """The log was set back and written to anew; announcements of both times come."""
    with stage(log=SetBackLog()) as (_, log):

        async def main() -> None:
            feed = Feed("a", is_authentic=is_authentic)
            events = [log.put("a", "message", str(number)) for number in range(5)]
            feed.start(START)
            feed.offer(events)
            await turns()
            log.lose("a", 3)
            anew = [log.put("a", "message", '"anew"') for _ in range(2 + lag)]
            for event in anew:
                feed.offer([event])
            await turns()
            assert feed.position == log.head("a")
            if is_authentic:
                assert log.ended == [events[3]]
                assert feed.epoch != events[0].epoch
            else:  # anybody can have said that there was another
                assert log.ended == []
            feed.close()

        instantly(main())


def test_an_announcement_that_contradicts_is_no_evidence():
    with stage(log=SetBackLog()) as (_, log):

        async def main() -> None:
            feed, reader = Feed("a"), Reader()
            feed.fanout.add(reader)
            feed.start(START)
            events = [log.put("a", "message", str(number)) for number in range(5)]
            feed.offer(events)
            await turns()
            reads = log.reads
            feed.offer([other(events[2])])
            await turns()
            assert reader.got == events
            assert log.ended == []
            assert log.reads == reads + 2  # the doubted one, and what follows
            feed.offer([log.put("a", "message", "5")])
            assert reader.offsets[-1] == 6
            feed.close()

        instantly(main())


def test_a_doubt_outlives_a_log_that_can_not_be_read(caplog):
    with stage(log=SetBackLog()) as (_, log):

        async def main() -> None:
            feed = Feed("a")
            feed.start(START)
            events = [log.put("a", "message", str(number)) for number in range(5)]
            feed.offer(events)
            await turns()
            log.lose("a", 3)
            anew = [log.put("a", "message", '"anew"') for _ in range(2)]
            log.failing = True
            feed.offer(anew)
            await turns()
            assert "Can't read the log of a" in caplog.text
            log.failing = False
            # The heads are the same: nothing was missed, and yet the log is read.
            assert not feed.compare(log.head("a"), feed.position)
            await turns()
            assert log.ended == [events[3]]
            assert feed.position == log.head("a")
            feed.close()

        instantly(main())


def test_a_forged_event_keeps_no_real_one_away():
    with stage(log=SetBackLog()) as (_, log):

        async def main() -> None:
            feed = Feed("a", is_authentic=False)
            first = log.put("a", "message", "1")
            feed.start(first.position)
            feed.offer([Event("a", "message", '"forged"', first.epoch, 2)])
            before = feed.position
            assert before.offset == 2
            assert not feed.compare(first.position, before)  # nothing else comes
            await turns()
            assert feed.position == first.position
            feed.offer([Event("a", "message", '"forged"', first.epoch, 2)])
            feed.offer([log.put("a", "message", "2")])
            await turns()
            assert feed.position == log.head("a")
            assert feed.after(feed.position, 1) == []
            assert log.ended == []
            feed.close()

        instantly(main())


def test_a_head_that_is_read_before_an_announcement_comes_is_nothing_lost():
    with stage(log=SetBackLog()) as (_, log):

        async def main() -> None:
            feed = Feed("a")
            first = log.put("a", "message", "1")
            feed.start(first.position)
            before = feed.position
            feed.offer([log.put("a", "message", "2")])
            assert not feed.compare(first.position, before)
            await turns()
            assert (feed.head, log.reads) == (2, 0)
            feed.close()

        instantly(main())


def test_what_was_pruned_is_read_past():
    with stage(log=SetBackLog()) as (_, log):

        async def main() -> None:
            feed = Feed("a")
            feed.start(START)
            feed.offer([log.put("a", "message", "1")])
            await turns()
            log.put("a", "message", "2")
            log.drop("a", 1)
            feed.catch_up()
            await turns()
            assert feed.head == 2
            assert log.ended == []
            feed.close()

        instantly(main())


@pytest.mark.parametrize("page", [{"LOG_PAGE_EVENTS": 1}, {"LOG_PAGE_BYTES": 150}])
@pytest.mark.parametrize("known", [0, 1, 2])
def test_events_of_which_a_page_takes_one_are_caught_up_with(page, known):
    with stage(**page) as (_, log):

        async def main() -> None:
            reader, feed = Reader(), Feed("a")
            feed.fanout.add(reader)
            feed.start(START)
            for count in (known, 5 - known):
                for _ in range(count):
                    log.put("a", "message", "x" * 100)
                feed.catch_up()
                await turns(60)
            assert reader.offsets == [1, 2, 3, 4, 5]
            feed.close()

        instantly(main())


def test_a_log_that_fails_while_it_is_caught_up_with_is_read_at_the_next_look(caplog):
    with stage() as (_, log):

        async def main() -> None:
            feed = Feed("a")
            feed.start(START)
            log.put("a", "message", "1")
            log.failing = True
            feed.catch_up()
            assert feed._catching_up is not None
            await feed._catching_up
            assert feed.head == 0
            log.failing = False
            feed.catch_up()
            await turns()
            assert feed.head == 1
            feed.close()

        instantly(main())
    assert "Can't read the log of a" in caplog.text


class Stall:
    """Measures how long the loop was kept from its other work: by this thread's own work, not by
    other processes that had the processor meanwhile."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.turns = 0

    async def run(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest = max(self.longest, now - before)
            self.turns += 1
            before = now


def make_feed() -> Feed:
    feed = Feed("a")
    feed.start(Position("epoch", 0))
    feed.epoch = "epoch"
    return feed


async def test_a_large_fan_out_lets_the_loop_run_in_between():
    # asyncio's debug mode makes each step slower: what is measured is an upper bound.
    class Slow(Reader):
        def notify(self, events: Sequence[Event]) -> None:
            super().notify(events)
            sum(range(1_000))

    feed, readers = make_feed(), [Slow() for _ in range(10_000)]
    for reader in readers:
        feed.fanout.add(reader)
    gc.collect()
    gc.disable()  # what the tests before this one have left is not looked through in the middle
    stall = Stall()
    measuring = asyncio.create_task(stall.run())
    await asyncio.sleep(0.01)
    stall.turns = 0
    for offset in range(1, 11):
        feed.offer([Event("a", "message", "1", "epoch", offset)])
    try:
        await eventually(lambda: all(len(reader.got) == 10 for reader in readers))
    finally:
        gc.enable()
    measuring.cancel()
    assert all(reader.offsets == list(range(1, 11)) for reader in readers)
    assert stall.turns > 10
    assert stall.longest < 0.05


@pytest.mark.usefixtures("one_slice")
async def test_a_reader_that_raises_hurts_no_other(caplog):
    class Broken(Reader):
        def notify(self, events: Sequence[Event]) -> None:
            raise RuntimeError("broken on purpose")

    feed, readers = make_feed(), [Reader(), Broken(), Reader()]
    for reader in readers:
        feed.fanout.add(reader)
    for offset in (1, 2):
        feed.offer([Event("a", "message", "1", "epoch", offset)])
    assert [reader.offsets for reader in readers] == [[1, 2], [], [1, 2]]
    assert "broken on purpose" in caplog.text


def test_the_memory_of_a_feed_has_limits():
    with stage(TAIL_EVENTS=4, TAIL_BYTES=100):

        async def main() -> None:
            feed = make_feed()
            for offset in range(1, 11):
                feed.offer([Event("a", "message", "1", "epoch", offset)])
            assert feed.after(Position("epoch", 5), 10) is None
            kept = feed.after(Position("epoch", 6), 2)
            assert kept is not None
            assert [event.offset for event in kept] == [7, 8]
            feed.offer([Event("a", "message", "x" * 99, "epoch", 11)])
            assert feed.after(Position("epoch", 8), 10) is None
            feed.offer([Event("a", "message", "x" * 200, "epoch", 12)])
            assert feed.after(Position("epoch", 11), 10) is None
            assert feed.after(Position("epoch", 12), 10) == []
            assert feed.after(Position("epoch", 13), 10) is None
            assert feed.after(START, 10) is None

        instantly(main())
