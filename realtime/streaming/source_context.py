"""Where the source of a stream runs: with the variables of its request, in threads that are shared.

A source with a task of its own has to see what middleware has set for its request: language, time
zone, tenant, trace. Its synchronous parts run in `STREAM_THREADS` threads for all streams of the
process: each stream borrows one at its first call and keeps to it, as open cursors expect, and
between its calls the thread serves others.
"""

import os
from contextvars import Context, copy_context
from functools import cache

from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext, _restore_context

from ..conf import settings
from ..server.request_threads import BorrowedThread, RequestThreads
from ..utils.reconnect import replace_dropped_connections


class RequestVariables:
    """The context variables of the code that makes it, which may be gone when the source begins."""

    def __init__(self) -> None:
        self._context: Context = copy_context()

    def enter(self) -> None:
        """Set them in the running task, and give it a thread for its synchronous parts."""
        _restore_context(self._context)  # as asgiref does it between threads
        use_stream_thread()


def use_stream_thread() -> None:
    """Have the synchronous parts of the running task run in one of the shared threads."""
    AsyncToSync.executors.current = None  # a thread of the request that waits no more
    context = ThreadSensitiveContext()
    SyncToAsync.context_to_thread_executor[context] = BorrowedThread(_threads())
    SyncToAsync.thread_sensitive_context.set(context)


@cache
def _threads() -> RequestThreads:
    threads = RequestThreads(settings.STREAM_THREADS)
    threads.before_call = [replace_dropped_connections]
    return threads


if hasattr(os, "register_at_fork"):
    # In a process that was forked off there are no threads.
    os.register_at_fork(after_in_child=_threads.cache_clear)
