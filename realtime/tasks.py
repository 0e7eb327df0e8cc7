"""Background tasks that outlive the request that started them."""

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")

_running: set[asyncio.Task[Any]] = set()


def spawn(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task in an empty context, so that it keeps nothing of the request alive: not its
    user, not its language, and not the thread that Django gave it."""
    task = asyncio.get_running_loop().create_task(coroutine, context=Context())
    # The loop itself keeps only weak references to tasks.
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task
