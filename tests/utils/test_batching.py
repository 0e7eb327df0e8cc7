"""Calls made together: alone at once, many as one, and none at another's cost."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from realtime.exceptions import OutcomeUnknown
from realtime.utils import batching
from realtime.utils.batching import Batcher


class Store:
    """Doubles numbers; can be held up, and refuses negative ones."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, numbers: Sequence[int]) -> list[int | BaseException]:
        self.batches.append(list(numbers))
        await self.open.wait()
        if any(number > 1_000 for number in numbers):
            raise OverflowError(str(numbers))
        return [ValueError(str(n)) if n < 0 else 2 * n for n in numbers]


@pytest.fixture
async def store() -> Store:
    return Store()


async def test_alone(store: Store) -> None:
    double = Batcher(store)
    assert [await double(n) for n in (1, 2)] == [2, 4]
    assert store.batches == [[1], [2]]


async def test_calls_made_during_a_batch_share_the_next_one(store: Store) -> None:
    double = Batcher(store)
    store.open.clear()
    calls = [asyncio.create_task(double(n)) for n in range(5)]
    while not store.batches:
        await asyncio.sleep(0)
    calls += [asyncio.create_task(double(n)) for n in range(5, 9)]
    await asyncio.sleep(0)
    store.open.set()
    assert await asyncio.gather(*calls) == [2 * n for n in range(9)]
    assert store.batches == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]


async def test_so_many_batches_are_under_way_and_no_more(store: Store) -> None:
    double = Batcher(store, at_once=2)
    store.open.clear()
    calls = []
    for count in (2, 3, 4, 5):
        calls += [asyncio.create_task(double(count)) for _ in range(count)]
        for _ in range(5):
            await asyncio.sleep(0)
    assert store.batches == [[2] * 2, [3] * 3]
    store.open.set()
    assert await asyncio.gather(*calls) == [2 * n for n in (2, 3, 4, 5) for _ in range(n)]
    assert store.batches[2:] == [[4] * 4 + [5] * 5]
    assert await double(6) == 12


@pytest.mark.parametrize("at_once", [1, 2])
async def test_without_memory_for_a_batch_the_next_call_finds_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    def no_memory(coroutine: Coroutine[Any, Any, None]) -> None:
        coroutine.close()
        raise MemoryError

    double = Batcher(store, at_once=at_once)
    for _ in range(3):
        with monkeypatch.context() as patched:
            patched.setattr(batching, "spawn", no_memory)
            with pytest.raises(MemoryError):
                await double(1)
        async with asyncio.timeout(5):
            assert await double(2) == 4
    assert store.batches == [[2]] * 3  # what was refused is not done


async def test_a_batch_that_is_cancelled_leaves_nobody_waiting(store: Store) -> None:
    double = Batcher(store)
    store.open.clear()
    calls = [asyncio.create_task(double(n)) for n in range(3)]
    while not store.batches:
        await asyncio.sleep(0)
    calls += [asyncio.create_task(double(n)) for n in range(3)]  # which wait for the next one
    await asyncio.sleep(0)
    for worker in double._queues.get()._workers:
        worker.cancel()
    answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20)
    assert [type(answer) for answer in answers] == [MemoryError] * 6
    store.open.set()
    assert await double(4) == 8


async def test_callers_of_a_batch_that_was_begun_are_told_that_it_may_be_done(store: Store) -> None:
    double = Batcher(store, unanswered=OutcomeUnknown)
    store.open.clear()
    calls = [asyncio.create_task(double(1))]
    while not store.batches:
        await asyncio.sleep(0)
    calls.append(asyncio.create_task(double(2)))  # which waits for the next one
    await asyncio.sleep(0)
    for worker in double._queues.get()._workers:
        worker.cancel()
    answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20)
    assert [type(answer) for answer in answers] == [OutcomeUnknown, MemoryError]


async def test_a_batch_without_memory_may_be_done() -> None:
    async def run(numbers: Sequence[int]) -> list[int]:
        raise MemoryError

    with pytest.raises(OutcomeUnknown):
        await Batcher(run, unanswered=OutcomeUnknown)(1)
    with pytest.raises(MemoryError):
        await Batcher(run)(1)


async def test_a_batch_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_CALLS", 3)
    double = Batcher(store)
    assert await asyncio.gather(*map(double, range(8))) == [2 * n for n in range(8)]
    assert [len(batch) for batch in store.batches] == [3, 3, 2]


async def test_each_has_its_own_answer(store: Store) -> None:
    double = Batcher(store)
    answers = await asyncio.gather(double(1), double(-1), double(2), return_exceptions=True)
    assert answers[::2] == [2, 4]
    assert isinstance(answers[1], ValueError)


async def test_a_batch_that_fails_is_not_repeated(store: Store) -> None:
    double = Batcher(store)
    answers = await asyncio.gather(double(1), double(5_000), double(2), return_exceptions=True)
    assert [type(answer) for answer in answers] == [OverflowError] * 3
    assert store.batches == [[1, 5_000, 2]]


async def test_a_call_that_only_reads_is_repeated_alone_when_its_batch_fails(store: Store) -> None:
    double = Batcher(store, repeat_alone=True)
    answers = await asyncio.gather(double(1), double(5_000), double(2), return_exceptions=True)
    assert answers[::2] == [2, 4]
    assert isinstance(answers[1], OverflowError)
    assert store.batches == [[1, 5_000, 2], [1], [5_000], [2]]


async def test_a_cancelled_call_is_left_out_of_its_batch(store: Store) -> None:
    double = Batcher(store)
    store.open.clear()
    first = asyncio.create_task(double(1))
    while not store.batches:
        await asyncio.sleep(0)
    second, third = asyncio.create_task(double(2)), asyncio.create_task(double(3))
    await asyncio.sleep(0)
    second.cancel()
    first.cancel()  # under way already: its answer is nobody's
    await asyncio.sleep(0)
    store.open.set()
    assert await third == 6
    assert store.batches == [[1], [3]]


async def test_those_that_were_answered_together_share_the_next_batch(store: Store) -> None:
    double = Batcher(store, linger=3_600)

    async def call_twice(turns: int) -> None:
        await double(turns)
        for _ in range(turns):  # until the next call
            await asyncio.sleep(0)
        await double(turns)

    async with asyncio.timeout(20):
        await asyncio.gather(*map(call_twice, (0, 20, 40)))
    assert store.batches == [[0, 20, 40], [0, 20, 40]]


async def test_a_call_whose_others_do_not_come_waits_for_them_once(store: Store) -> None:
    double = Batcher(store, linger=0.001)
    await asyncio.gather(*map(double, range(3)))
    assert await double(7) == 14
    double._queues.get()._linger = 3_600
    async with asyncio.timeout(20):
        assert await double(8) == 16, "the last one was alone, so no others are expected"
    assert store.batches == [[0, 1, 2], [7], [8]]


async def test_leaves_no_task(store: Store) -> None:
    double = Batcher(store)
    await asyncio.gather(*map(double, range(8)))
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_loops_do_not_meet() -> None:
    async def answer(numbers: Sequence[int]) -> list[int | BaseException]:
        await asyncio.sleep(0)
        return list(numbers)

    same = Batcher(answer)
    for number in range(3):
        assert asyncio.run(same(number)) == number
