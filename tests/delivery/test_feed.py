"""The feed: what it keeps, what it catches up with, and very many readers."""

import asyncio
import gc
import time
from collections.abc import Sequence

from realtime.delivery.feed import Feed
from realtime.events.event import Event
from realtime.events.position import START, Position

from ..support.clients import eventually
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
    assert not feed.compare(Position("epoch", 5))
    assert feed._is_behind


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
            sum(range(100))

    feed, readers = make_feed(), [Slow() for _ in range(10_000)]
    for reader in readers:
        feed.fanout.add(reader)
    gc.collect()  # or what the tests before this one have left may be collected in the middle
    stall = Stall()
    measuring = asyncio.create_task(stall.run())
    await asyncio.sleep(0.01)
    stall.turns = 0
    for offset in range(1, 11):
        feed.offer([Event("a", "message", "1", "epoch", offset)])
    await eventually(lambda: all(len(reader.got) == 10 for reader in readers))
    measuring.cancel()
    assert all(reader.offsets == list(range(1, 11)) for reader in readers)
    assert stall.turns > 10
    assert stall.longest < 0.05


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
