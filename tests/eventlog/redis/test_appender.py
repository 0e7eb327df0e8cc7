"""`realtime.eventlog.redis.appender`: what is not answered is stored once, or never."""

import asyncio
import json
from collections.abc import AsyncIterator
from unittest.mock import patch

import pytest
from django.test import override_settings

from realtime.eventlog.base import NewEvent
from realtime.eventlog.redis.appender import APPEND, Appender
from realtime.eventlog.redis.client import CallFailed, Client, NotAnswered
from realtime.eventlog.redis.keyspace import Keyspace
from realtime.eventlog.redis.log import RedisLog
from realtime.eventlog.redis.request import Append
from realtime.events.event import Event
from realtime.events.position import OLDEST
from realtime.exceptions import KeyReused, OutcomeUnknown, SeveralPartitions
from realtime.utils.aio import PerLoop

from ...chaos.proxy import Proxy
from ...support.servers import Valkey
from ..support import redis_log_at

ANSWER_SECONDS = 0.8  # which a busy machine does not use up, and a silent Redis makes us wait


@pytest.fixture
async def proxy(redis_log: RedisLog, shared_valkey: Valkey) -> AsyncIterator[Proxy]:
    async with Proxy(lambda: asyncio.open_connection("127.0.0.1", shared_valkey.port)) as running:
        yield running


@pytest.fixture
def log(proxy: Proxy) -> RedisLog:
    """The log behind the proxy."""
    url = f"redis://127.0.0.1:{proxy.port}"
    return redis_log_at(url, REDIS_LOG_ANSWER_SECONDS=ANSWER_SECONDS)


def new(number: int, topic: str = "a", key: str | None = None) -> NewEvent:
    return NewEvent(topic, "message", str(number), key=key)


async def stored(log: RedisLog) -> list[tuple[int, str]]:
    events = (await log.read("a", OLDEST, 100)).events
    return [(event.offset, event.data) for event in events]


@pytest.mark.parametrize("fault", ["swallow", "silence", "half_open"])
async def test_an_append_without_an_answer_is_stored_once(log, redis_log, proxy, fault, caplog):
    await log.aappend([new(0)])
    getattr(proxy, fault)()
    told: list[Event] = []
    events = await asyncio.gather(*(log.aappend([new(n)], told.extend) for n in (1, 2, 3)))
    assert [event.position.offset for [event] in events] == [2, 3, 4]
    assert told == [event for [event] in events]
    await log.aappend([new(4)])
    assert await stored(redis_log) == [(n + 1, str(n)) for n in range(5)]
    assert "Redis did not answer an append" in caplog.text


async def test_what_comes_late_is_not_stored_again(log, redis_log, proxy):
    await log.aappend([new(0)])
    proxy.freeze()  # what is sent waits on the way
    append = asyncio.create_task(log.aappend([new(1)]))
    await asyncio.sleep(3 * ANSWER_SECONDS)  # sent again, which waits too
    assert not append.done()
    proxy._flows.set()
    assert [event.offset for event in await append] == [2]
    assert await stored(redis_log) == [(1, "0"), (2, "1")]


async def test_after_the_time_it_is_unknown_and_what_was_given_up_is_not_stored_later(
    log, redis_log, proxy
):
    await log.aappend([new(0)])
    proxy.silence()
    with override_settings(REALTIME={"APPEND_RESOLVE_SECONDS": 0.3}):
        append = asyncio.create_task(log.aappend([new(1)]))
        await asyncio.sleep(0.1)
        proxy.is_refusing = True
        with pytest.raises(OutcomeUnknown):
            await append
    proxy.heal()
    assert [event.offset for event in await log.aappend([new(2)])] == [2]
    assert await stored(redis_log) == [(1, "0"), (2, "2")]


async def test_each_of_two_that_are_under_way_is_stored_once(log, redis_log, proxy):
    await log.aappend([new(0)])
    proxy.swallow()
    first = asyncio.create_task(log.aappend([new(1)]))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(log.aappend([new(2)]))
    await asyncio.sleep(0.05)
    third = asyncio.create_task(log.aappend([new(3)]))  # waits for one of them
    events = [event for [event] in await asyncio.gather(first, second, third)]
    assert [event.offset for event in events] == [2, 3, 4]
    assert await stored(redis_log) == [(n + 1, str(n)) for n in range(4)]


async def test_an_append_does_not_overtake_one_that_is_sent_again(log, redis_log, proxy):
    """As where a publisher gives up the first, or one transaction has more than a batch."""
    await log.aappend([new(0)])
    proxy.silence()  # what is sent does not arrive
    first = asyncio.create_task(log.aappend([new(1)]))
    await asyncio.sleep(0.05)
    proxy.heal()  # which cuts: the first is in doubt now, and waits before it is sent again
    await asyncio.sleep(0.02)
    second = asyncio.create_task(log.aappend([new(2)]))
    assert [event.offset for [event] in await asyncio.gather(first, second)] == [2, 3]
    assert await stored(redis_log) == [(n + 1, str(n)) for n in range(3)]


async def test_an_append_does_not_overtake_one_that_waits_for_the_connection(
    redis_log, shared_valkey
):
    """As in a new process, where a transaction has more than a batch behind another publisher."""
    log = redis_log_at(shared_valkey.url)  # with its own time to connect: 250 appends are begun
    first = asyncio.create_task(log.aappend([new(0)]))
    for _ in range(3):
        await asyncio.sleep(0)  # it connects
    await asyncio.gather(first, *(log.aappend([new(n)]) for n in range(1, 250)))
    page = await redis_log.read("a", OLDEST, 1_000)
    assert [event.data for event in page.events] == [str(n) for n in range(250)]


async def test_of_two_with_one_number_one_is_made_and_none_below_the_last(redis_log, shared_valkey):
    space, client = Keyspace(8), Client(shared_valkey.url, 5.0)

    def append(number: int, data: int) -> Append:
        return Append(space, "writer", number, [[new(data)]])

    async def send(each: Append) -> list[list[Event] | KeyReused]:
        return each.answers(await client.run(APPEND, each.keys, each.values))

    first, second = append(1, 1), append(2, 2)
    [[event]] = await send(first)
    assert await send(first) == [[event]]
    assert [each.offset for [each] in await send(second)] == [2]
    with pytest.raises(CallFailed, match="STALE"):
        await send(first)
    with pytest.raises(CallFailed, match="STALE"):
        await send(append(1, 3))
    await client.aclose()


async def test_each_of_a_batch_is_answered_for_itself(redis_log, caplog):
    def then(events: list[Event]) -> None:
        raise ValueError("of the site's own")

    await redis_log.aappend([new(1, key="k")])
    answers = await asyncio.gather(
        redis_log.aappend([new(2)], then),
        redis_log.aappend([new(3), new(9, key="k")]),
        redis_log.aappend([new(4), new(1, key="k"), new(5, "b")]),
        redis_log.check_writable(),
        return_exceptions=True,
    )
    assert [event.offset for event in answers[0]] == [2]
    assert isinstance(answers[1], KeyReused)
    assert [(e.topic, e.offset, e.is_repeated) for e in answers[2]] == [
        ("a", 3, False),
        ("a", 1, True),
        ("b", 1, False),
    ]
    assert answers[3] is None
    assert "are stored, and what was to follow failed" in caplog.text


async def test_a_publisher_that_leaves_takes_nothing_back(log, redis_log, proxy):
    await log.aappend([new(0)])
    told: list[Event] = []
    proxy.freeze()
    append = asyncio.create_task(log.aappend([new(1)], told.extend))
    await asyncio.sleep(0.1)
    append.cancel()
    proxy.heal()
    async with asyncio.timeout(20):
        while not told:
            await asyncio.sleep(0.02)
    assert await stored(redis_log) == [(1, "0"), (2, "1")]


async def test_on_a_cluster_a_batch_over_partitions_is_refused_and_the_others_are_not():
    space = Keyspace(128)
    topics = ["a", "b"]
    assert space.tag("a") != space.tag("b")

    class Recorded:
        is_cluster = is_open = True
        sent: list[list[str]] = []

        async def run(self, script: object, keys: list[str], values: list[object]) -> object:
            self.sent.append(keys)
            raise CallFailed("no cluster today")

    client = Recorded()
    appender = Appender(space, PerLoop(lambda: client))
    with patch.object(Client, "aclose"):
        answers = await asyncio.gather(
            *(appender.append([new(1, topic)], None) for topic in topics),
            appender.append([new(1, topic) for topic in topics], None),
            return_exceptions=True,
        )
    assert isinstance(answers[2], SeveralPartitions)
    assert "a, b are in several partitions" in str(answers[2])
    assert len(client.sent) == 2
    for keys in client.sent:
        assert len({key[: key.index("}")] for key in keys}) == 1


class HalfACluster:
    """Stores in one partition; what is sent to another one `fails`."""

    is_cluster = is_open = True

    def __init__(self, tag: str, fails: Exception) -> None:
        self.tag = tag
        self.fails = fails
        self.head = 0
        self.calls: list[int] = []  # in each append

    async def run(self, script: object, keys: list[str], values: list[str]) -> bytes:
        if any(f"{{{self.tag}}}" not in key for key in keys):
            raise self.fails
        given = json.loads(values[0])
        self.calls.append(len(given["calls"]))
        await asyncio.sleep(0)
        results = []
        for call in given["calls"]:
            results.append([self.head + number for number in range(1, len(call) + 1)])
            self.head += len(call)
        said = {"renewed": [], "epochs": ["epoch001" for _ in given["topics"]], "results": results}
        return json.dumps(said).encode()


async def test_on_a_cluster_publishers_to_one_partition_share_its_appends():
    space = Keyspace(128)
    client = HalfACluster(space.tag("b"), ZeroDivisionError())
    appender = Appender(space, PerLoop(lambda: client))
    for _ in range(2):
        await asyncio.gather(*(appender.append([new(n, "b")], None) for n in range(20)))
    assert client.calls == [20, 20]


async def test_on_a_cluster_the_appends_of_a_partition_go_one_after_the_other():
    """Each may go over a connection of its own, on which it could be the first to arrive."""
    space = Keyspace(128)
    url = "redis+cluster://127.0.0.1:1"
    under_way, most = 0, 0

    async def run(self: Client, script: object, keys: list[str], values: list[str]) -> bytes:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return await HalfACluster(space.tag("b"), ZeroDivisionError()).run(script, keys, values)

    appender = Appender(space, PerLoop(lambda: Client(url, 1.0)))
    with patch.object(Client, "run", run):
        tasks = []
        for number in range(4):
            tasks.append(asyncio.create_task(appender.append([new(number, "b")], None)))
            await asyncio.sleep(0.002)
        await asyncio.gather(*tasks)
    assert most == 1


@pytest.mark.parametrize("fails", [NotAnswered("silent"), ZeroDivisionError()])
async def test_on_a_cluster_a_node_that_fails_delays_nobody_who_publishes_to_another(fails):
    space = Keyspace(128)
    client = HalfACluster(space.tag("b"), fails)
    appender = Appender(space, PerLoop(lambda: client))
    with override_settings(REALTIME={"APPEND_RESOLVE_SECONDS": 1.0}):
        failing = []
        async with asyncio.timeout(0.8):
            for number in range(1, 5):  # more than are under way at once
                failing.append(asyncio.create_task(appender.append([new(number, "a")], None)))
                [event] = await appender.append([new(number, "b")], None)
                assert event.offset == number
        answers = await asyncio.gather(*failing, return_exceptions=True)
    expected = OutcomeUnknown if isinstance(fails, NotAnswered) else type(fails)
    assert [type(answer) for answer in answers] == [expected] * 4
