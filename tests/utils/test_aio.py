"""`realtime.utils.aio`: nothing of the request lives on in a background task."""

import asyncio
import threading
from contextvars import ContextVar

import pytest
from asgiref.sync import ThreadSensitiveContext, sync_to_async

from realtime.utils.aio import _waiting, at_loop_end, spawn

current_user: ContextVar[str] = ContextVar("current_user", default="nobody")


async def test_it_gives_the_result():
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    task = spawn(work())
    assert isinstance(task, asyncio.Task)
    assert await task == 7


async def test_what_it_raises_comes_to_who_awaits_it():
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


def test_the_end_of_a_loop_is_waited_for():
    told = []

    async def say() -> None:
        await asyncio.sleep(0.01)
        told.append("ended")

    async def main() -> None:
        at_loop_end(say)
        at_loop_end(say)
        assert told == []

    before = len(_waiting)
    asyncio.run(main())
    assert told == ["ended", "ended"]
    assert len(_waiting) == before


def test_the_last_begun_ends_first_whatever_becomes_of_the_others(caplog):
    told = []

    def callback(name):
        async def say() -> None:
            await asyncio.sleep(0.01)
            told.append(name)
            if name == "second":
                raise ZeroDivisionError

        return say

    async def main() -> None:
        for name in ("first", "second", "third"):
            at_loop_end(callback(name))

    for _ in range(2):
        asyncio.run(main())
        assert told == ["third", "second", "first"]
        told.clear()
    assert caplog.text.count("failed at the end") == 2
