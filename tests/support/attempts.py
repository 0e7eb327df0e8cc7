"""Measures that a busy machine may spoil."""

from collections.abc import Awaitable, Callable

TRIES = 3


def three_tries(attempt: Callable[[], object]) -> None:
    """Call `attempt` until it passes, three times at most: what is too slow fails each time.

    For what has to happen within a time, or before another thing does: a machine that stands still
    for some seconds spoils one attempt. Each begins anew, with connections of its own.
    """
    for _ in range(TRIES - 1):
        try:
            attempt()
            return
        except Exception:
            pass
    attempt()


async def three_tries_of(attempt: Callable[[], Awaitable[object]]) -> None:
    """Do the same with a coroutine function."""
    for _ in range(TRIES - 1):
        try:
            await attempt()
            return
        except Exception:
            pass
    await attempt()
