"""Measures that a busy machine may spoil."""

import warnings
from collections.abc import Awaitable, Callable

TRIES = 3


class FailedAttempt(Warning):
    """An attempt that failed before another passed: listed at the end of a run."""


def three_tries(attempt: Callable[[], object]) -> None:
    """Call `attempt` until it passes, three times at most: what is too slow fails each time.

    For what has to happen within a time, or before another thing does: a machine that stands still
    for some seconds spoils one attempt. Each begins anew, with connections of its own.
    """
    for number in range(1, TRIES):
        try:
            attempt()
            return
        except Exception as error:
            _warn(number, error)
    attempt()


async def three_tries_of(attempt: Callable[[], Awaitable[object]]) -> None:
    """Do the same with a coroutine function."""
    for number in range(1, TRIES):
        try:
            await attempt()
            return
        except Exception as error:
            _warn(number, error)
    await attempt()


def _warn(number: int, error: Exception) -> None:
    # A test that needs a second attempt on an idle machine has found a fault that comes at times.
    warnings.warn(f"attempt {number} failed: {error!r:.200}", FailedAttempt, stacklevel=3)
