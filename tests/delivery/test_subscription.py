"""The subscription: where it starts, what it hands out, and that it lets go."""

import asyncio
from typing import Any

import pytest

from realtime.delivery import subscription as subscription_module
from realtime.delivery.hub import get_hub, running_hubs
from realtime.delivery.publish import publish_now
from realtime.delivery.subscription import Subscription
from realtime.delivery.synced import Sink
from realtime.delivery.topic_subscriber import Reset, Started
from realtime.events.event import Event
from realtime.events.position import OLDEST, START, Position

from ..support.clients import eventually
from ..support.fakes import FaultyLog, LogFailed, Noise
from ..support.hubs import from_elsewhere, stage
from ..support.lanes import FakeLane


@pytest.fixture
def world():
    with stage(
        HEAD_CHECK_SECONDS=0.1, EPHEMERAL_QUEUE=3, LOG_PAGE_EVENTS=4, TAIL_EVENTS=6
    ) as parts:
        yield parts


@pytest.fixture(autouse=True)
async def _nothing_left(world):
    yield
    await eventually(lambda: not running_hubs() and world[0].groups == {})
    await eventually(lambda: len(asyncio.all_tasks()) == 1)


def append(log: FaultyLog, topic: str, count: int) -> list[Event]:
    return [log.put(topic, "message", str(number)) for number in range(count)]


async def read_all(subscription: Subscription) -> list[Any]:
    """Everything that is there."""
    items: list[Any] = []
    while page := await subscription.read(0.05):
        items += page
    return items


def offsets(items: list[Any]) -> list[int]:
    return [item.offset for item in items]


# -- where it starts


async def test_without_a_position_it_starts_now(world):
    _, log = world
    append(log, "a", 3)
    async with Subscription() as subscription:
        assert await subscription.add("a") == Started(Position("epoch001", 3), True)
        await publish_now("a", 1)
        assert offsets(await read_all(subscription)) == [4]


@pytest.fixture
def state(world, settings):
    settings.REALTIME = {**settings.REALTIME, "TOPICS": {"a": {"STATE": True}}}
    return world[1]


async def test_of_a_state_topic_the_newest_comes_first_and_then_what_is_new(state):
    append(state, "a", 3)
    append(state, "b", 3)
    async with Subscription() as subscription:
        started = await subscription.add("a")
        await subscription.add("b")
        assert started == Started(Position("epoch001", 2), True)
        await publish_now("a", 1)
        assert offsets(await read_all(subscription)) == [3, 4]
        async with Subscription() as second:  # from memory
            await second.add("a")
            assert offsets(await second.read()) == [4]
            await publish_now("a", 1)
            assert offsets(await read_all(second)) == [5]


@pytest.mark.parametrize("count", [1, 3])
async def test_of_a_state_topic_whoever_has_a_position_goes_on_from_there(state, count):
    append(state, "a", count)
    for after, expected in (
        (OLDEST, list(range(1, count + 1))),
        (Position("epoch001", count), []),
        (Position("epoch001", count - 1), [count]),
        (START, list(range(1, count + 1))),
    ):
        async with Subscription() as subscription:
            assert (await subscription.add("a", after)).recovered
            assert offsets(await read_all(subscription)) == expected
    async with Subscription() as subscription:
        lost = await subscription.add("a", Position("other", 1))
        assert lost == Started(Position("epoch001", count), False)
        assert await read_all(subscription) == []


async def test_a_state_topic_without_an_event_that_is_kept_starts_now(state):
    async with Subscription() as subscription:
        assert await subscription.add("a") == Started(START, True)
        await publish_now("a", 1)
        assert offsets(await read_all(subscription)) == [1]
    append(state, "a", 1)
    state.drop("a", 0)
    async with Subscription() as subscription:
        assert await subscription.add("a") == Started(Position("epoch001", 2), True)
        await publish_now("a", 1, ephemeral=True)
        await publish_now("a", 1)
        assert offsets(await read_all(subscription)) == [0, 3]


async def test_readers_of_a_state_topic_that_come_while_it_changes_miss_nothing(state):
    append(state, "a", 1)

    async def come(number: int) -> list[int]:
        await asyncio.sleep(number / 1_000)
        async with Subscription() as subscription:
            await subscription.add("a")
            found: list[int] = []
            while not found or found[-1] < 101:
                found += offsets(await subscription.read())
            return found

    readers = [asyncio.create_task(come(number)) for number in range(20)]
    for _ in range(100):
        await publish_now("a", 1)
        await asyncio.sleep(0)
    for found in await asyncio.gather(*readers):
        assert found == list(range(found[0], 102))


async def test_history_and_live_join_without_a_gap(world):
    _, log = world
    append(log, "a", 10)
    async with Subscription() as subscription:
        await subscription.add("a", Position("epoch001", 2))
        first = await subscription.read()
        await publish_now("a", 1)
        assert offsets([*first, *await read_all(subscription)]) == list(range(3, 12))
        assert subscription.positions == {"a": Position("epoch001", 11)}


async def test_the_first_page_is_read_once():
    with stage(LOG_PAGE_EVENTS=4, TAIL_EVENTS=6) as (_, log):  # no check of the heads meanwhile
        append(log, "a", 10)
        async with Subscription() as subscription:
            assert (await subscription.add("a", Position("epoch001", 2))).recovered
            assert log.reads == 1
            append(log, "a", 1)
            # It is not handed out yet.
            assert subscription.positions == {"a": Position("epoch001", 2)}
            assert offsets(await subscription.read()) == [3, 4, 5, 6]
            assert log.reads == 1
            assert offsets(await subscription.read()) == [7, 8, 9, 10]


async def test_the_first_page_goes_with_its_topic(world):
    _, log = world
    append(log, "a", 10)
    async with Subscription() as subscription:
        await subscription.add("a", Position("epoch001", 2))
        subscription.remove("a")
        await subscription.add("a", Position("epoch001", 8))
        assert offsets(await read_all(subscription)) == [9, 10]


async def test_the_oldest_of_a_pruned_topic_is_where_history_begins(world):
    _, log = world
    append(log, "a", 10)
    log.drop("a", 3)
    async with Subscription() as subscription:
        assert (await subscription.add("a", OLDEST)).recovered
        assert offsets(await read_all(subscription)) == [8, 9, 10]


async def test_the_oldest_of_an_emptied_topic_is_its_head(world):
    _, log = world
    append(log, "a", 10)
    log.drop("a", 0)
    async with Subscription() as subscription:
        assert (await subscription.add("a", OLDEST)).recovered
        assert await read_all(subscription) == []
        await publish_now("a", 1)
        assert offsets(await read_all(subscription)) == [11]


@pytest.mark.parametrize(
    "after", [Position("epoch001", 2), Position("epoch001", 99), Position("foreign0", 1), START]
)
async def test_a_position_out_of_reach_starts_now_and_says_so(world, after):
    _, log = world
    append(log, "a", 10)
    log.drop("a", 3)
    async with Subscription() as subscription:
        assert await subscription.add("a", after) == Started(Position("epoch001", 10), False)
        await publish_now("a", 1)
        assert offsets(await read_all(subscription)) == [11]


async def test_a_topic_without_events(world):
    async with Subscription() as subscription:
        assert await subscription.add("a", START) == Started(START, True)
        await publish_now("a", 1)
        assert offsets(await read_all(subscription)) == [1]


async def test_on_start_comes_before_the_first_event(world):
    _, log = world
    append(log, "a", 3)
    order: list[Any] = []
    async with Subscription() as subscription:

        async def on_start(started: Started) -> None:
            await publish_now("a", 1)
            await asyncio.sleep(0.05)
            order.append(started)

        async def read() -> None:
            async for item in subscription:
                order.append(item.offset)

        reading = asyncio.create_task(read())
        await subscription.add("a", Position("epoch001", 2), on_start)
        await eventually(lambda: len(order) == 3)
        assert order == [Started(Position("epoch001", 2), True), 3, 4]
        subscription.close()
        await reading


async def test_a_topic_is_subscribed_once_and_never_after_the_end(world):
    async with Subscription() as subscription:
        await subscription.add("a")
        with pytest.raises(ValueError, match="subscribed already"):
            await subscription.add("a")
    with pytest.raises(RuntimeError, match="closed"):
        await subscription.add("b")


# -- history that goes


async def test_history_that_goes_while_one_reads_is_a_reset(world):
    _, log = world
    append(log, "a", 20)
    async with Subscription() as subscription:
        await subscription.add("a", OLDEST)
        assert offsets(await subscription.read()) == [1, 2, 3, 4]
        log.drop("a", 2)
        assert await subscription.read() == [Reset("a", Position("epoch001", 20))]
        await publish_now("a", 1)
        assert offsets(await read_all(subscription)) == [21]


async def test_a_reborn_topic_is_a_reset(world):
    _, log = world
    append(log, "a", 5)
    async with Subscription() as subscription:
        await subscription.add("a")
        log.delete("a")
        append(log, "a", 2)
        assert await subscription.read(2) == [Reset("a", Position("epoch002", 2))]
        await publish_now("a", 1)
        assert offsets(await read_all(subscription)) == [3]


# -- slow, fair, bounded


async def test_a_slow_reader_reads_the_log_and_keeps_no_queue(world):
    layer, log = world
    async with Subscription() as subscription:
        await subscription.add("a")
        for event in append(log, "a", 200):
            await layer.group_send("a", from_elsewhere(event))
        feed = get_hub().feeds["a"]
        await eventually(lambda: feed.head == 200)
        assert len(feed._tail) == 6
        assert not subscription._page
        reads = log.reads
        assert offsets(await read_all(subscription)) == list(range(1, 201))
        assert log.reads > reads


async def test_a_long_history_holds_up_no_other_topic(world):
    _, log = world
    append(log, "long", 100)
    append(log, "short", 2)
    async with Subscription() as subscription:
        await subscription.add("long", OLDEST)
        await subscription.add("short", OLDEST)
        pages = [await subscription.read() for _ in range(2)]
        assert {page[0].topic for page in pages} == {"long", "short"}
        assert len(await read_all(subscription)) == 96


@pytest.mark.usefixtures("one_slice")
async def test_ephemeral_events_wait_in_a_bounded_queue(world):
    async with Subscription() as subscription:
        await subscription.add("a")
        for number in range(10):
            await publish_now("a", number, ephemeral=True)
        assert [item.data for item in await read_all(subscription)] == ["7", "8", "9"]


async def test_a_flood_of_ephemeral_events_holds_up_nothing_logged(world):
    async with Subscription() as subscription:
        await subscription.add("a")
        await publish_now("a", "logged")
        got: list[Any] = []
        for number in range(50):
            await publish_now("a", number, ephemeral=True)
            got += await subscription.read(1)
            await asyncio.sleep(0)
        assert 1 in offsets(got)


async def test_a_timeout_returns_nothing(world):
    async with Subscription() as subscription:
        await subscription.add("a")
        await subscription.read(0.01)
        assert await subscription.read(0.01) == []


async def test_a_cancelled_read_loses_nothing(world):
    _, log = world
    log.noise = Noise(3, delay=1.0, longest=0.02)
    got: list[Any] = []
    async with Subscription() as subscription:
        await subscription.add("a", START)
        append(log, "a", 30)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 30
        while len(got) < 30 and loop.time() < deadline:
            try:
                async with asyncio.timeout(log.noise.random.uniform(0, 0.04)):
                    got += await subscription.read()
            except TimeoutError:
                pass
        assert offsets(got) == list(range(1, 31))


async def test_a_failing_log_is_the_reader_s_to_see_and_nothing_is_lost(world, caplog):
    caplog.set_level("CRITICAL", "realtime")
    _, log = world
    append(log, "a", 10)
    async with Subscription() as subscription:
        await subscription.add("a", OLDEST)
        log.failing = True
        with pytest.raises(LogFailed):
            await subscription.read()
        log.failing = False
        assert offsets(await read_all(subscription)) == list(range(1, 11))


# -- leaving


async def test_what_was_left_is_not_handed_out(world):
    _, log = world
    append(log, "a", 3)
    async with Subscription() as subscription:
        await subscription.add("a", OLDEST)
        await subscription.add("b")
        await publish_now("a", 1, ephemeral=True)
        subscription.remove("a")
        assert await read_all(subscription) == []


async def test_a_topic_that_is_left_in_the_middle_of_a_page_stops_there(world):
    _, log = world
    append(log, "a", 4)
    async with Subscription() as subscription:
        await subscription.add("a", OLDEST)
        got = []
        async for item in subscription:
            got.append(item.offset)
            if got == [1]:
                subscription.remove("a")
                await subscription.add("a", Position("epoch001", 2))
            if got[-1] == 4:
                subscription.close()
        assert got == [1, 3, 4]


async def test_a_topic_that_is_left_while_the_log_is_read(world):
    _, log = world
    append(log, "a", 4)
    async with Subscription() as subscription:
        await subscription.add("a", OLDEST)
        log.noise = Noise(1, delay=1.0, longest=0.1)
        reading = asyncio.create_task(subscription.read(5))
        await asyncio.sleep(0)
        subscription.remove("a")
        await subscription.add("a", Position("epoch001", 2))
        assert offsets([*await reading, *await read_all(subscription)]) == [3, 4]


# -- the fast lane


class Lane(FakeLane):
    """Takes something so many times; what was written is the offsets."""

    def __init__(self, takes: int = 1_000) -> None:
        super().__init__()
        self.left = takes
        self.written: Any = []

    def try_write(self, data: bytes) -> bool:
        if not self.left:
            return False
        self.left -= 1
        self.written.append([int(offset) for offset in data.split(b",")[:-1]])
        return True

    @property
    def offsets(self) -> list[int]:
        return [offset for offsets in self.written for offset in offsets]


def encode(event: Event) -> bytes:
    return b"%d," % event.offset


def is_synced(topic: str) -> bool:
    return bool(get_hub().feeds[topic].fanout._places)


async def test_what_a_new_subscriber_has_missed_goes_to_the_lane_by_pages(world):
    _, log = world
    append(log, "a", 10)
    lane = Lane()
    async with Subscription(Sink(encode, lane)) as subscription:
        await subscription.add("a", START)
        assert [item async for item in subscription.ready()] == []
        assert lane.written == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
        assert is_synced("a")
        await publish_now("a", 1)
        assert lane.offsets == list(range(1, 12))


@pytest.mark.parametrize("takes", [0, 1, 2])
async def test_what_the_lane_does_not_take_is_handed_out(world, takes):
    _, log = world
    append(log, "a", 10)
    lane = Lane(takes)
    async with Subscription(Sink(encode, lane)) as subscription:
        await subscription.add("a", START)
        handed_out = offsets([item async for item in subscription.ready()])
        assert lane.offsets == list(range(1, 4 * takes + 1))
        assert lane.offsets + handed_out == list(range(1, 11))


async def test_a_lane_that_has_room_again_takes_the_rest_of_the_page_at_once(world):
    _, log = world
    append(log, "a", 10)
    lane, handed_out = Lane(takes=0), []
    async with Subscription(Sink(encode, lane)) as subscription:
        await subscription.add("a", START)
        async for item in subscription.ready():
            handed_out.append(item)
            lane.left = len(handed_out) - 1  # after the second
    assert offsets(handed_out) == [1, 2, 5]
    assert lane.written == [[3, 4], [6, 7, 8], [9, 10]]


async def test_a_lane_gets_nothing_before_a_reset_or_unread_events_are_delivered(world):
    _, log = world
    append(log, "a", 10)
    lane = Lane(takes=0)
    async with Subscription(Sink(encode, lane)) as subscription:
        await subscription.add("a", OLDEST)
        async for item in subscription.ready():
            assert item.offset == 1
            break
        lane.left = 9
        handed_out = [item async for item in subscription.ready()]
        assert handed_out == []
        assert lane.written == [[2, 3, 4], [5, 6, 7, 8], [9, 10]]  # first the rest of the page
        log.delete("a")
        append(log, "a", 2)
        handed_out = []
        async with asyncio.timeout(20):
            while not handed_out:  # until the look at the heads has found it
                await asyncio.sleep(0.05)
                handed_out = [item async for item in subscription.ready()]
        assert [type(item) for item in handed_out] == [Reset]


async def test_what_an_iteration_has_left_is_handed_out_by_the_next(world):
    _, log = world
    append(log, "a", 3)
    async with Subscription() as subscription:
        await subscription.add("a", OLDEST)
        async for item in subscription:
            assert item.offset == 1
            break
        offsets = []
        async with asyncio.timeout(20):
            async for item in subscription:
                offsets.append(item.offset)
                if item.offset == 3:
                    break
    assert offsets == [2, 3]


@pytest.mark.parametrize(("events", "size"), [(2, 1_000), (1_000, 2)])
async def test_not_too_much_is_written_at_once(world, monkeypatch, events, size):
    monkeypatch.setattr(subscription_module, "WRITE_EVENTS", events)
    monkeypatch.setattr(subscription_module, "WRITE_BYTES", size)
    _, log = world
    append(log, "a", 5)
    lane = Lane()
    async with Subscription(Sink(encode, lane)) as subscription:
        await subscription.add("a", START)
        assert [item async for item in subscription.ready()] == []
        assert lane.written == [[1, 2], [3, 4], [5]]


async def test_a_new_reader_of_a_busy_topic_is_synced_soon(world):
    """Each event that is written by itself costs more than it takes to publish one."""
    _, log = world
    append(log, "a", 10)
    written = 0

    async def write(subscription: Subscription) -> None:
        nonlocal written
        async for _ in subscription:
            written += 1
            for _ in range(30):
                await asyncio.sleep(0)

    async def publish() -> None:
        while True:
            await publish_now("a", 1)
            await asyncio.sleep(0)

    async with Subscription(Sink(encode, Lane())) as subscription:
        publishing = asyncio.create_task(publish())
        await subscription.add("a", START)
        writing = asyncio.create_task(write(subscription))
        await eventually(lambda: is_synced("a"))
        assert written < 100
        for task in (publishing, writing):
            task.cancel()
        await asyncio.gather(publishing, writing, return_exceptions=True)


async def test_the_end_while_it_waits_and_while_it_reads(world):
    _, log = world
    append(log, "a", 4)
    waiting, reading = Subscription(), Subscription()
    await waiting.add("b")
    await reading.add("a", OLDEST)
    log.noise = Noise(1, delay=1.0, longest=0.1)
    tasks = [asyncio.create_task(s.read()) for s in (waiting, reading)]
    await asyncio.sleep(0.01)
    waiting.close()
    reading.close()
    async with asyncio.timeout(20):
        assert await asyncio.gather(*tasks) == [[], []]


@pytest.mark.parametrize("end", ["close", "remove", "cancel"])
async def test_the_end_while_a_topic_is_attached(world, end):
    _, log = world
    log.noise = Noise(1, delay=1.0, longest=0.1)
    started: list[Started] = []

    async def on_start(where: Started) -> None:
        started.append(where)

    subscription = Subscription()
    adding = asyncio.create_task(subscription.add("a", None, on_start))
    await asyncio.sleep(0.001)
    if end == "close":
        subscription.close()
    elif end == "remove":
        subscription.remove("a")
    else:
        adding.cancel()
    await asyncio.gather(adding, return_exceptions=True)
    assert started == []
    assert subscription.topics == []
    assert running_hubs() == []
