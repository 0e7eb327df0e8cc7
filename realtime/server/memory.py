"""Tell the supervisor that this process gets no more memory.

Anything may fail then: also what would wake a task, or tell the event loop what a thread has found,
and what waits for that waits for good. That can't be made up for in each place where it may happen;
another process makes up for it once.
"""

import asyncio
import errno
import mmap
import os
import sys
import threading
from typing import Any, Final

from realtime.server.workers import NO_MEMORY

PROBE_BYTES: Final = 1 << 20  # what Python's allocator takes at once from the system
PROBE_SECONDS: Final = 0.1  # between two probes, each of which costs some microseconds


def is_exhausted() -> bool:
    """Return whether the system gives this process no more memory."""
    try:
        with mmap.mmap(-1, PROBE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
            return False
    except MemoryError:
        return True
    except OSError as error:
        return error.errno in (errno.ENOMEM, errno.EAGAIN)


def watch(loop: asyncio.AbstractEventLoop, pipe: int) -> None:
    """Look in `loop` whether there is memory, again and again; say in `pipe` when there is none."""
    try:
        loop.call_later(PROBE_SECONDS, watch, loop, pipe)
        is_out = is_exhausted()
    except MemoryError:  # and nobody looks any more
        is_out = True
    if is_out:
        _tell(pipe)


def note_errors(loop: asyncio.AbstractEventLoop, pipe: int) -> None:
    """Say in `pipe`, from now on, when a MemoryError ends a thread or a callback of `loop`.

    Between two probes there may have been no memory for a moment, in which a thread may have died
    that others wait for: one of a pool of connections, say.
    """
    before_unraisable, before_thread = sys.unraisablehook, threading.excepthook
    process = os.getpid()  # a child that is forked off has the pipe too

    def unraisable(error: "sys.UnraisableHookArgs") -> None:
        if issubclass(error.exc_type, MemoryError) and os.getpid() == process:
            _tell(pipe)
        before_unraisable(error)

    def in_thread(error: threading.ExceptHookArgs) -> None:
        if issubclass(error.exc_type, MemoryError) and os.getpid() == process:
            _tell(pipe)
        before_thread(error)

    def in_callback(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), MemoryError):
            _tell(pipe)
        loop.default_exception_handler(context)

    sys.unraisablehook, threading.excepthook = unraisable, in_thread
    loop.set_exception_handler(in_callback)


def _tell(pipe: int) -> None:
    try:
        os.write(pipe, NO_MEMORY)
    except OSError:  # its other end stands still, or has gone
        return
