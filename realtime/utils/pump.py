"""A source that runs in a task of its own, and is read in chunks."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sized
from typing import Any, TypeVar

from .aio import aclose, cancel_and_wait, spawn

T = TypeVar("T")


async def chunked(
    source: AsyncIterable[Any],
    join: Callable[[list[Any]], T],
    max_size: float,
    max_seconds: float,
    *,
    idle: float | None = None,
    convert: Callable[[Any], Sized] | None = None,
    enter: Callable[[], None] = lambda: None,
) -> AsyncGenerator[T, None]:
    """Yield what `source` yields, each item converted, joined to chunks.

    A chunk ends when the lengths of its items reach `max_size`, and the source stops there until
    it is taken; at the latest `max_seconds` after the one before. `join` gets no items after
    `idle` seconds without any. `enter` is called first in the source's task, whose context is
    empty. Raises what the source raises, after what it has yielded.
    """
    # In one task from its first line to its `finally`: a timeout around each step would cancel it,
    # and a task for each step would break the cancel scopes that HTTP clients hold across steps.
    items: list[Any] = []
    size = 0
    some, full, room = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def pump() -> None:
        nonlocal size
        enter()
        iterator = aiter(source)
        try:
            async for item in iterator:
                if convert is not None:
                    item = convert(item)
                items.append(item)
                size += len(item)
                some.set()
                if size >= max_size:
                    full.set()
                    room.clear()
                    await room.wait()
        finally:
            await aclose(iterator)

    def end(task: asyncio.Task[None]) -> None:
        some.set()
        full.set()

    now = asyncio.get_running_loop().time
    last = now() - max_seconds
    task = spawn(pump())
    task.add_done_callback(end)
    try:
        while True:
            await _wait(some, idle)
            if items:
                await _wait(full, last + max_seconds - now())
            chunk, items, size = items, [], 0
            if not task.done():
                some.clear()
                full.clear()
            elif not chunk:
                break
            room.set()
            last = now()
            yield join(chunk)
        task.result()
    finally:
        await cancel_and_wait(task)


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    """Wait for an event, which is set after `seconds` at the latest."""
    if event.is_set() or (seconds is not None and seconds <= 0):
        return
    timer = None
    if seconds is not None:
        timer = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        if timer is not None:
            timer.cancel()
