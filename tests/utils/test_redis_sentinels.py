"""`realtime.utils.redis_sentinels`; the tests of the log and of the bus have real ones."""

import asyncio
from functools import partial

import pytest

from realtime.utils.redis_sentinels import first_answer


class Calls:
    """Calls that answer, fail or are silent, and those of them that have begun and ended."""

    def __init__(self) -> None:
        self.begun: list[object] = []
        self.ended: list[object] = []

    async def make(self, seconds: float, answer: object) -> object:
        self.begun.append(answer)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.ended.append(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def first(self, *calls: tuple[float, object], within: float = 0.1) -> object:
        return await first_answer([partial(self.make, *call) for call in calls], within)


async def test_the_others_are_not_asked_where_the_first_one_answers():
    calls = Calls()
    assert await calls.first((0, "a"), (0, "b"), within=60) == "a"
    assert calls.begun == ["a"]


async def test_the_next_is_asked_at_once_where_one_has_failed():
    calls = Calls()
    async with asyncio.timeout(10):
        assert await calls.first((0, OSError()), (0, "b"), within=60) == "b"


async def test_what_is_silent_keeps_no_other_from_being_asked_and_is_given_up():
    calls = Calls()
    async with asyncio.timeout(10):
        assert await calls.first((60, "a"), (60, "b"), (0, "c")) == "c"
    assert calls.begun == ["a", "b", "c"]
    assert sorted(map(str, calls.ended)) == ["a", "b", "c"]


async def test_what_is_late_still_counts():
    assert await Calls().first((0.2, "a"), (60, "b")) == "a"


async def test_without_an_answer_the_last_failure_is_raised():
    last = ConnectionError("last")
    with pytest.raises(ConnectionError, match="last") as caught:
        await Calls().first((0.2, last), (0, OSError("first")))
    assert caught.value is last


async def test_what_is_cancelled_leaves_nothing_that_goes_on():
    calls = Calls()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await calls.first((60, "a"))
    assert calls.ended == ["a"]
