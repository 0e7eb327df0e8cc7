"""Tell the supervisor that this process gets no more memory.

Anything may fail then: also what would wake a task, or tell the event loop what a thread has found,
and what waits for that waits for good. That can't be made up for in each place where it may happen;
another process makes up for it once.
"""

import asyncio
import mmap
import os
from contextlib import suppress
from typing import Final

from realtime.server.workers import NO_MEMORY

PROBE_BYTES: Final = 1 << 20  # what Python's allocator takes at once from the system
PROBE_SECONDS: Final = 0.1  # between two probes, each of which costs some microseconds


def is_exhausted() -> bool:
    """Return whether the system gives this process no more memory."""
    try:
        with mmap.mmap(-1, PROBE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
            return False
    except (OSError, MemoryError):
        return True


def watch(loop: asyncio.AbstractEventLoop, pipe: int) -> None:
    """Look in `loop` whether there is memory, again and again; say in `pipe` when there is none."""
    if is_exhausted():
        with suppress(OSError):  # its other end stands still, or has gone
            os.write(pipe, NO_MEMORY)
    loop.call_later(PROBE_SECONDS, watch, loop, pipe)
