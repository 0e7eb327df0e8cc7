"""The cache: shared loads, what is forgotten meanwhile, what is not kept."""

import asyncio
from collections.abc import Callable

import pytest

from realtime.access import cache as module
from realtime.access.cache import SingleFlightCache

Cache = SingleFlightCache[str, str]
KEY = "a"
SECONDS = 30.0


class Source:
    """Answers loads, and counts them."""

    def __init__(self, value: str = "one") -> None:
        self.value = value
        self.loads = 0
        self.answer = asyncio.Event()
        self.answer.set()

    async def __call__(self) -> str:
        self.loads += 1
        value = self.value
        await self.answer.wait()
        return value


@pytest.fixture
async def cache() -> Cache:
    cache = Cache()
    cache.trust()
    return cache


async def test_value_is_loaded_once(cache: Cache) -> None:
    source = Source()
    assert [await cache.get(KEY, source, SECONDS) for _ in range(3)] == ["one"] * 3
    assert source.loads == 1


async def test_loop_that_trusts_it_speaks_for_no_other(cache: Cache) -> None:
    source = Source()
    await cache.get(KEY, source, SECONDS)
    assert cache.is_trusted

    async def ask() -> str:
        assert not cache.is_trusted
        cache.distrust()
        return await cache.get(KEY, Source(), SECONDS)

    await asyncio.to_thread(asyncio.run, ask())
    assert cache.is_trusted
    await cache.get(KEY, source, SECONDS)
    await cache.get(KEY, source, SECONDS)
    assert source.loads == 2  # the other has made it forget, which does no harm


async def test_value_is_not_kept_without_trust() -> None:
    cache, source = Cache(), Source()
    for _ in range(3):
        await cache.get(KEY, source, SECONDS)
    assert source.loads == 3


@pytest.mark.parametrize(("seconds", "loads"), [(None, 2), (0.01, 2), (10.0, 1)])
async def test_value_is_kept_for_its_seconds(
    cache: Cache, seconds: float | None, loads: int
) -> None:
    source = Source()
    await cache.get(KEY, source, seconds)
    await asyncio.sleep(0.02)
    await cache.get(KEY, source, seconds)
    assert source.loads == loads


async def test_callers_at_once_share_a_load(cache: Cache) -> None:
    source = Source()
    source.answer.clear()
    tasks = [asyncio.create_task(cache.get(KEY, source, SECONDS)) for _ in range(100)]
    await asyncio.sleep(0)
    tasks[0].cancel()  # the first caller leaves; the others are still answered
    await asyncio.sleep(0)
    source.answer.set()
    assert await asyncio.gather(*tasks[1:]) == ["one"] * 99
    assert source.loads == 1


async def test_error_goes_to_all_callers_and_is_not_kept(cache: Cache) -> None:
    async def fail() -> str:
        await asyncio.sleep(0)
        raise LookupError("no")

    results = await asyncio.gather(
        cache.get(KEY, fail, SECONDS), cache.get(KEY, fail, SECONDS), return_exceptions=True
    )
    assert [type(result) for result in results] == [LookupError] * 2
    assert await cache.get(KEY, Source(), SECONDS) == "one"


@pytest.mark.parametrize(
    ("stale", "loads"),
    [([lambda value: value == "one"], 2), ([lambda value: value == "two"], 1), ([], 2)],
)
async def test_stale_values_are_forgotten(
    cache: Cache, stale: list[Callable[[str], bool]], loads: int
) -> None:
    source = Source()
    await cache.get(KEY, source, SECONDS)
    cache.forget(*stale)
    await cache.get(KEY, source, SECONDS)
    assert source.loads == loads


async def test_load_that_a_change_has_overtaken_is_not_kept(cache: Cache) -> None:
    source = Source()
    source.answer.clear()
    early = asyncio.create_task(cache.get(KEY, source, SECONDS))
    while not source.loads:
        await asyncio.sleep(0)
    cache.forget(lambda value: False)
    source.value = "two"
    late = asyncio.create_task(cache.get(KEY, source, SECONDS))
    while source.loads < 2:
        await asyncio.sleep(0)
    source.answer.set()
    assert (await early, await late) == ("one", "two")
    assert await cache.get(KEY, source, SECONDS) == "two"
    assert source.loads == 2


async def test_refused_key_is_dropped(cache: Cache) -> None:
    await cache.get(KEY, Source(), SECONDS)
    assert not cache.is_refused(KEY)
    cache.refuse(KEY)
    assert cache.is_refused(KEY)
    source = Source()
    await cache.get(KEY, source, SECONDS)
    assert source.loads == 1


async def test_entries_are_bounded(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    source = Source()
    for number in range(10):
        await cache.get(f"{number}", source, SECONDS)
        cache.refuse(f"refused {number}")
    refused = [cache.is_refused(f"refused {number}") for number in range(10)]
    assert refused == [False] * 7 + [True] * 3
    for number in range(9, -1, -1):  # the newest are still there; a load drops the oldest
        await cache.get(f"{number}", source, SECONDS)
    assert source.loads == 10 + 7
