"""Cancellation that arrives.

Before Python 3.12, `asyncio.wait_for` swallows one that comes in the very turn in which what it
waits for ends: the task goes on. Redis' client writes every command through it, so a task that
talks to Redis, ours or a user's, may have to be told again.
"""

import asyncio
from typing import Any, Final

AGAIN_SECONDS: Final = 10.0
"""Seconds that a cancelled task gets for its `finally` before it is cancelled again."""


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel `tasks` and wait until they have ended; what they raise is not raised here."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=AGAIN_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()  # seen, so that asyncio does not report it
