"""`realtime.utils.cancellation`: a task that has swallowed a cancellation is told again."""

import asyncio
import logging

import pytest

from realtime.streaming.response import keep_alive
from realtime.utils import cancellation
from realtime.utils.cancellation import cancelled


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(cancellation, "AGAIN_SECONDS", 0.05)


class Deaf:
    """A task that swallows its first cancellations, as `asyncio.wait_for` of Python 3.11 may."""

    def __init__(self, swallows: int) -> None:
        self.swallows = swallows
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not self.swallows:
                    raise
                self.swallows -= 1


@pytest.mark.parametrize("swallows", [0, 1, 3])
async def test_it_is_cancelled_until_it_has_ended(swallows):
    deaf = Deaf(swallows)
    await asyncio.sleep(0)
    await cancelled(deaf.task)
    assert deaf.task.cancelled()


async def test_it_waits_for_all_and_raises_nothing(caplog):
    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError

    failing, done = asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(0))
    deaf = Deaf(1)
    await asyncio.sleep(0.01)
    await cancelled(failing, done, deaf.task)
    await cancelled()
    assert all(task.done() for task in (failing, done, deaf.task))
    del failing
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_finally_has_its_time(monkeypatch):
    monkeypatch.setattr(cancellation, "AGAIN_SECONDS", 10)
    cleaned = False

    async def work() -> None:
        nonlocal cleaned
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.1)
            cleaned = True

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await cancelled(task)
    assert cleaned


async def test_a_stream_whose_source_swallows_a_cancellation_is_closed():
    closed = False

    async def source():
        nonlocal closed
        try:
            yield b"data: 1\n\n"
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield b"data: 2\n\n"  # nobody takes it
                yield b"data: 3\n\n"
                yield b"data: 4\n\n"
        finally:
            closed = True

    stream = keep_alive(source(), 10)
    assert await anext(stream) == b"data: 1\n\n"
    async with asyncio.timeout(5):
        await stream.aclose()
    assert closed
