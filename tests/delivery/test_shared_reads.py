"""`realtime.delivery.shared_reads`: who shares a page of the log, and for how long."""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from realtime.delivery.feed import Feed
from realtime.delivery.shared_reads import KEEP_SECONDS, MOST_PAGES, SharedReads
from realtime.eventlog.base import Page
from realtime.events.event import Event
from realtime.events.position import START, Position
from realtime.exceptions import HistoryGone

from ..support.fakes import FaultyLog, LogFailed
from ..support.hubs import instantly, stage, turns


class GatedLog(FaultyLog):
    """A log whose pages, as they are now, are had when the gate opens."""

    gate: asyncio.Event | None = None

    async def read(self, topic: str, after: Position, limit: int) -> Page:
        try:
            return await super().read(topic, after, limit)
        finally:
            if self.gate is not None:
                await self.gate.wait()


@pytest.fixture
async def log() -> AsyncIterator[GatedLog]:
    with stage(log=GatedLog(), LOG_PAGE_EVENTS=4) as (_, log):
        yield log


def append(log: FaultyLog, count: int) -> list[Event]:
    return [log.put("a", "message", f'"{number:03}"') for number in range(count)]


def test_readers_at_one_place_share_a_read_and_what_is_encoded():
    async def main(log: GatedLog) -> None:
        append(log, 6)
        reads, log.gate = SharedReads("a"), asyncio.Event()
        waiting = [asyncio.create_task(reads.read(START)) for _ in range(3)]
        await turns()
        log.gate.set()
        pages = [*await asyncio.gather(*waiting), await reads.read(START)]
        assert log.reads == 1
        assert all(page is pages[0] for page in pages)
        assert [event.offset for event in pages[0].events] == [1, 2, 3, 4]
        rest = await reads.read(pages[0].position)
        assert [event.offset for event in rest.events] == [5, 6]
        assert log.reads == 2

    with stage(log=GatedLog(), LOG_PAGE_EVENTS=4) as (_, log):
        instantly(main(log))


def test_a_page_is_read_again_after_a_second():
    async def main(log: FaultyLog) -> None:
        append(log, 2)
        reads = SharedReads("a")
        await reads.read(START)
        await asyncio.sleep(KEEP_SECONDS / 2)
        append(log, 1)
        assert len((await reads.read(START)).events) == 2
        await asyncio.sleep(KEEP_SECONDS)
        assert len((await reads.read(START)).events) == 3
        assert log.reads == 2

    with stage() as (_, log):
        instantly(main(log))


def test_a_page_is_kept_for_a_second_whatever_was_read_there_before():
    async def main(log: FaultyLog) -> None:
        append(log, 2)
        reads = SharedReads("a")
        await reads.read(START)
        reads.clear()
        await asyncio.sleep(KEEP_SECONDS * 0.9)
        await reads.read(START)
        await asyncio.sleep(KEEP_SECONDS * 0.9)
        await reads.read(START)
        assert log.reads == 2

    with stage() as (_, log):
        instantly(main(log))


async def test_where_there_was_nothing_the_log_is_asked_again(log):
    [*_, last] = append(log, 3)
    reads, log.gate = SharedReads("a"), asyncio.Event()
    first = asyncio.create_task(reads.read(last.position))
    await turns()  # by now the log has been asked
    [new] = append(log, 1)
    second = asyncio.create_task(reads.read(last.position))
    await turns()
    log.gate.set()
    assert (await first).events == []
    assert (await second).events == [new]
    [newer] = append(log, 1)
    assert (await reads.read(new.position)).events == [newer]


async def test_many_who_stand_where_there_is_nothing_ask_twice(log):
    [last] = append(log, 1)
    reads, log.gate = SharedReads("a"), asyncio.Event()
    waiting = [asyncio.create_task(reads.read(last.position)) for _ in range(100)]
    await turns()
    log.gate.set()
    assert all(page.events == [] for page in await asyncio.gather(*waiting))
    assert log.reads == 2


async def test_a_history_that_is_gone_is_asked_for_anew(log):
    [first, *_] = append(log, 4)
    log.drop("a", keep=1)
    reads, log.gate = SharedReads("a"), asyncio.Event()
    waiting = [asyncio.create_task(reads.read(first.position)) for _ in range(3)]
    await turns()
    log.gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in found] == [HistoryGone] * 3
    assert log.reads == 2
    with pytest.raises(HistoryGone):
        await reads.read(first.position)
    assert log.reads == 3


async def test_a_position_that_was_made_up_resets_nobody_who_comes_to_stand_there(log):
    [last] = append(log, 1)
    reads, log.gate = SharedReads("a"), asyncio.Event()
    forger = asyncio.create_task(reads.read(Position(last.epoch, last.offset + 1)))
    await turns()  # by now the log has refused it
    [new] = append(log, 1)
    reader = asyncio.create_task(reads.read(new.position))
    await turns()
    log.gate.set()
    with pytest.raises(HistoryGone):
        await forger
    assert (await reader).events == []


def test_a_read_that_hangs_keeps_nobody_who_comes_later():
    async def main(log: GatedLog) -> None:
        append(log, 2)
        reads, gate = SharedReads("a"), asyncio.Event()
        log.gate = gate
        first = asyncio.create_task(reads.read(START))
        await asyncio.sleep(KEEP_SECONDS + 0.1)
        log.gate = None
        assert len((await reads.read(START)).events) == 2
        assert not first.done()
        gate.set()
        assert len((await first).events) == 2

    with stage(log=GatedLog()) as (_, log):
        instantly(main(log))


async def test_a_failure_is_not_kept(log):
    append(log, 1)
    reads, log.failing = SharedReads("a"), True
    with pytest.raises(LogFailed):
        await reads.read(START)
    log.failing = False
    assert len((await reads.read(START)).events) == 1


async def test_a_reader_that_leaves_takes_the_page_from_nobody(log):
    append(log, 1)
    reads, log.gate = SharedReads("a"), asyncio.Event()
    leaving, staying = (asyncio.create_task(reads.read(START)) for _ in range(2))
    await turns()
    leaving.cancel()
    await turns()
    log.gate.set()
    assert len((await staying).events) == 1
    assert log.reads == 1
    assert leaving.cancelled()


async def test_what_all_have_left_is_not_read_any_more(log):
    append(log, 1)
    reads, log.gate = SharedReads("a"), asyncio.Event()
    leaving = [asyncio.create_task(reads.read(START)) for _ in range(2)]
    await turns()
    for task in leaving:
        task.cancel()
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    log.gate = None
    assert len((await reads.read(START)).events) == 1


async def test_one_that_comes_as_the_last_leaves_begins_another(log):
    append(log, 1)
    reads, log.gate = SharedReads("a"), asyncio.Event()
    leaving = asyncio.create_task(reads.read(START))
    await turns()
    leaving.cancel()
    await asyncio.sleep(0)  # it has left, and the read has not ended yet
    log.gate = None
    assert len((await reads.read(START)).events) == 1


def test_no_more_pages_are_held_than_are_kept():
    def held() -> int:
        gc.collect()
        return sum(type(each) is Page for each in gc.get_objects())

    async def main(log: FaultyLog) -> None:
        events, before = append(log, 3 * MOST_PAGES), held()
        reads = SharedReads("a")
        for event in events[:-1]:
            await reads.read(event.position)
        assert held() - before == MOST_PAGES
        reads.clear()
        assert held() == before

    with stage() as (_, log):
        instantly(main(log))


def test_of_many_places_the_newest_are_kept():
    async def main(log: FaultyLog) -> None:
        events = append(log, MOST_PAGES + 1)
        reads = SharedReads("a")
        places = [START, *(event.position for event in events)]
        for place in places[: MOST_PAGES + 1]:
            await reads.read(place)
        for place in places[1 : MOST_PAGES + 1]:
            await reads.read(place)
        assert log.reads == MOST_PAGES + 1
        await reads.read(START)
        assert log.reads == MOST_PAGES + 2

    with stage() as (_, log):
        instantly(main(log))


@pytest.mark.parametrize(("limit", "count"), [(10, 1), (9, 2)])
def test_a_page_over_the_bytes_that_a_topic_may_keep_is_not_kept(limit, count):
    async def main(log: FaultyLog) -> None:
        append(log, 2)  # of five bytes each
        reads = SharedReads("a")
        await reads.read(START)
        await reads.read(START)
        assert log.reads == count

    with stage(TAIL_BYTES=limit) as (_, log):
        instantly(main(log))


async def test_a_topic_that_begins_anew_hands_out_no_page_of_before(log):
    append(log, 2)
    feed = Feed("a")
    assert len((await feed.read(START)).events) == 2
    log.delete("a")
    append(log, 1)
    assert len((await feed.read(START)).events) == 2
    feed._restart(log.head("a"))
    assert len((await feed.read(START)).events) == 1
    feed.close()
