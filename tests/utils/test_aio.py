"""`realtime.utils.aio`: tasks that keep nothing of a request, and end; what belongs to a loop."""

import asyncio
import gc
import logging
import threading
from contextvars import ContextVar
from weakref import WeakSet

import pytest
from asgiref.sync import ThreadSensitiveContext, sync_to_async

from realtime.utils import aio
from realtime.utils.aio import PerLoop, _waiting, cancel_and_wait, shielded, spawn

from ..support.hubs import turns

current_user: ContextVar[str] = ContextVar("current_user", default="nobody")


async def test_it_gives_the_result():
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    task = spawn(work())
    assert isinstance(task, asyncio.Task)
    assert await task == 7


async def test_an_error_is_raised_where_the_task_is_awaited():
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await spawn(fail())


async def test_it_starts_in_an_empty_context():
    async def who() -> str:
        return current_user.get()

    current_user.set("alice")
    assert await asyncio.create_task(who()) == "alice"
    assert await spawn(who()) == "nobody"


async def test_its_sync_work_is_not_done_in_the_requests_thread():
    async def thread() -> int:
        return await sync_to_async(threading.get_ident)()

    async with ThreadSensitiveContext():  # as Django's handler has around each request
        of_the_request = await thread()
        assert await asyncio.create_task(thread()) == of_the_request
        assert await spawn(thread()) != of_the_request


# -- cancellation


async def test_a_shielded_task_goes_on_when_its_waiter_is_cancelled():
    door = asyncio.Event()

    async def work() -> int:
        await door.wait()
        return 7

    task = spawn(work())
    waiting = [asyncio.create_task(shielded(task)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    assert waiting[0].cancelled()
    door.set()
    assert await waiting[1] == await task == 7


@pytest.mark.parametrize("is_left", [True, False], ids=["left", "waited for"])
async def test_what_a_shielded_task_raises_goes_to_its_waiter_or_is_not_reported(is_left):
    door, reported = asyncio.Event(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def fail() -> None:
        await door.wait()
        raise ZeroDivisionError

    waiting = asyncio.create_task(shielded(spawn(fail())))
    await asyncio.sleep(0)
    if is_left:
        waiting.cancel()
        await asyncio.sleep(0)
    door.set()
    with pytest.raises(asyncio.CancelledError if is_left else ZeroDivisionError):
        await waiting
    await turns()
    gc.collect()
    assert not reported


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
async def test_it_is_cancelled_until_it_has_ended(swallows, monkeypatch):
    monkeypatch.setattr(aio, "AGAIN_SECONDS", 0.05)
    deaf = Deaf(swallows)
    await asyncio.sleep(0)
    await cancel_and_wait(deaf.task)
    assert deaf.task.cancelled()


async def test_being_cancelled_it_passes_that_on_until_the_task_has_ended(monkeypatch):
    """As an application that is cancelled while it ends the generator that it reads."""
    monkeypatch.setattr(aio, "AGAIN_SECONDS", 60)
    deaf = Deaf(2)
    await asyncio.sleep(0)
    waiting = asyncio.create_task(cancel_and_wait(deaf.task))
    for _ in range(2):
        await asyncio.sleep(0.01)
        assert not waiting.done()
        waiting.cancel()  # AGAIN_SECONDS are not over
    async with asyncio.timeout(15):
        await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert deaf.task.cancelled()


async def test_it_waits_for_all_and_raises_nothing(caplog, monkeypatch):
    monkeypatch.setattr(aio, "AGAIN_SECONDS", 0.05)

    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError

    failing, done = asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(0))
    deaf = Deaf(1)
    await asyncio.sleep(0.01)
    await cancel_and_wait(failing, done, deaf.task)
    await cancel_and_wait()
    assert all(task.done() for task in (failing, done, deaf.task))
    del failing
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_finally_has_its_time():
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
    await cancel_and_wait(task)
    assert cleaned


# -- one object for each loop


def test_each_loop_has_one_of_its_own():
    mine: PerLoop[list[int]] = PerLoop(list)

    async def twice() -> bool:
        mine.get().append(1)
        return mine.get() == [1]

    assert asyncio.run(twice())
    assert asyncio.run(twice())


def test_the_end_of_a_loop_is_waited_for():
    closed = []

    async def close(made: object) -> None:
        await asyncio.sleep(0.01)
        closed.append(made)

    async def main() -> list[object]:
        made = [mine.get(), mine.get(), other.get()]
        assert closed == []
        return made

    mine, other = PerLoop(object, close), PerLoop(object, close)
    before = len(_waiting)
    first, again, second = asyncio.run(main())
    assert first is again
    assert closed == [second, first]
    assert len(_waiting) == before


def test_the_last_made_ends_first_whatever_becomes_of_the_others(caplog):
    told = []

    async def close(name: str) -> None:
        await asyncio.sleep(0.01)
        told.append(name)
        if name == "second":
            raise ZeroDivisionError

    def named(name: str) -> PerLoop[str]:
        return PerLoop(lambda: name, close)

    registries = [named(name) for name in ("first", "second", "third")]

    async def main() -> None:
        for registry in registries:
            registry.get()

    for _ in range(2):
        asyncio.run(main())
        assert told == ["third", "second", "first"]
        told.clear()
    assert caplog.text.count("failed at the end") == 2


def test_what_holds_its_loop_is_let_go_of_when_another_loop_has_one():
    async def main() -> None:
        mine.get().append(asyncio.get_running_loop().create_future())
        loops.add(asyncio.get_running_loop())
        gc.collect()
        assert list(loops) == [asyncio.get_running_loop()]

    mine = PerLoop[list[object]](list)
    loops = WeakSet[asyncio.AbstractEventLoop]()
    for _ in range(3):
        asyncio.run(main())
