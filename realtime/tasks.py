"""Background tasks that outlive the request that started them."""

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def spawn(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task in an empty context, so that it keeps nothing of the request alive: not its
    user, not its language, and not the thread that Django gave it."""
    return asyncio.get_running_loop().create_task(coroutine, context=Context())
