"""A source in a task of its own: which chunks come when, and that it is always closed."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

import pytest

from realtime.utils.pump import chunked

from ..support.clock import InstantLoop


class Source:
    """Yields the texts of its steps, waits for the seconds, raises the errors."""

    def __init__(self, *steps: str | float | Exception) -> None:
        self.steps: Iterable[str | float | Exception] = steps
        self.produced = 0
        self.finished = False
        self.tasks: set[Any] = set()

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        self.tasks.add(asyncio.current_task())
        try:
            for step in self.steps:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    self.produced += 1
                    yield step
        finally:
            self.tasks.add(asyncio.current_task())
            await asyncio.sleep(0)  # as one that says goodbye to its upstream
            self.finished = True


def timed(source: Source, max_size: float, max_seconds: float, **options: Any) -> list[Any]:
    """The chunks, each with its second, on a loop whose clock waits for nobody."""

    async def main() -> list[Any]:
        now = asyncio.get_running_loop().time
        start = now()
        chunks = chunked(source, "".join, max_size, max_seconds, **options)
        return [(round(now() - start, 2), chunk) async for chunk in chunks]

    with asyncio.Runner(loop_factory=InstantLoop) as runner:
        return runner.run(main())


@pytest.mark.parametrize(
    ("steps", "max_size", "max_seconds", "idle", "chunks"),
    [
        ([], 9, 1, None, []),
        ([""], 9, 1, None, [(0, "")]),
        (["a", 3.0], 9, 1, None, [(0, "a")]),
        (["a", "b", "c"], 9, 1, None, [(0, "abc")]),
        (["a", "b", "c"], 0, 0, None, [(0, "a"), (0, "b"), (0, "c")]),
        (["a", "b", "c"], 2, 1, None, [(0, "ab"), (0, "c")]),
        (["aaa", "b"], 2, 1, None, [(0, "aaa"), (0, "b")]),
        # Slowly: at most one chunk a second; at once where it is full, or the end.
        (["a", 0.2, "b", 0.2, "c", 1.0, "d", 0.1], 9, 1, None, [(0, "a"), (1, "bc"), (1.5, "d")]),
        (["a", 0.2, "b", 0.2, "cc", 5.0], 3, 1, None, [(0, "a"), (0.4, "bcc")]),
        (["a", 3.0, "b", 0.5], 9, 1, None, [(0, "a"), (3, "b")]),
        # A silence.
        ([5.0, "a"], 0, 0, 2, [(2, ""), (4, ""), (5, "a")]),
        (["a", 1.5, "b", 1.5], 0, 0, 2, [(0, "a"), (1.5, "b")]),
    ],
    ids=str,
)
def test_which_chunks_come_when(steps, max_size, max_seconds, idle, chunks):
    source = Source(*steps)
    assert timed(source, max_size, max_seconds, idle=idle) == chunks
    assert source.finished
    assert len(source.tasks) == 1, "a cancel scope that is open across steps belongs to one task"


def test_items_are_converted_in_the_source_s_task():
    assert timed(Source("a", "b"), 4, 1, convert=lambda text: text * 2) == [(0, "aabb")]

    source = Source("a", "b")
    with pytest.raises(ZeroDivisionError):
        timed(source, 4, 1, convert=lambda text: 1 // 0)  # type: ignore[arg-type,return-value]
    assert source.finished


async def test_what_was_yielded_before_an_error_comes_first():
    source = Source("a", "b", RuntimeError("on purpose"))
    chunks = chunked(source, "".join, 9, 0)
    assert await anext(chunks) == "ab"
    with pytest.raises(RuntimeError, match="on purpose"):
        await anext(chunks)
    assert source.finished


async def test_the_source_stops_while_a_full_chunk_is_not_taken():
    source = Source(*["x"] * 50)
    async with aclosing(chunked(source, "".join, 3, 0)) as chunks:
        assert await anext(chunks) == "xxx"
        for _ in range(100):
            await asyncio.sleep(0)
        assert source.produced == 6
        assert not source.finished
    assert source.finished
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_source_without_a_bound_runs_on():
    source = Source(*["x"] * 50, 60.0)
    async with aclosing(chunked(source, "".join, float("inf"), 0)) as chunks:
        assert await anext(chunks) == "x" * 50


async def test_being_cancelled_while_the_source_waits_closes_it():
    source = Source(60.0)
    reading = asyncio.ensure_future(anext(chunked(source, "".join, 9, 0, idle=60)))
    await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert source.finished
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_source_that_swallows_a_cancellation_is_closed(monkeypatch):
    monkeypatch.setattr("realtime.utils.aio.AGAIN_SECONDS", 0.05)
    closed = False

    async def source():
        nonlocal closed
        try:
            yield "a"
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield "b"  # nobody takes it
                yield "c"
        finally:
            closed = True

    chunks = chunked(source(), "".join, 0, 0, idle=10)
    assert await anext(chunks) == "a"
    async with asyncio.timeout(15):
        await chunks.aclose()
    assert closed
