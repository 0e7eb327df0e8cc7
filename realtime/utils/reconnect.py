"""Replace the database connections that the server has dropped, before a thread's next call.

Django looks after its connections when a request begins and ends. A consumer, a stream, a task and
a permission rule have neither: what they call of the ORM goes to a thread in which a connection
that was once dropped would be used for ever.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from asgiref.sync import SyncToAsync
from django.db import connections

T = TypeVar("T")

IDLE_SECONDS: Final = 1.0  # without a call, after which a connection is checked before the next


def replace_dropped_connections(*, was_idle: bool = False) -> None:
    """Close those of the thread's connections that have failed.

    With CONN_HEALTH_CHECKS, also those that have failed unnoticed while the thread `was_idle`.
    """
    # Those that are only old are kept, unlike by `close_old_connections`: between two calls of the
    # same thread a cursor may be open. Django itself checks none that a pool has given.
    for connection in connections.all(initialized_only=True):
        if connection.connection is None or connection.in_atomic_block:
            continue
        if connection.errors_occurred or (was_idle and connection.settings_dict["CONN_HEALTH_CHECKS"]):
            if connection.is_usable():
                connection.errors_occurred = False
            else:
                connection.close()


class ReconnectingThread(ThreadPoolExecutor):
    """One thread, whose calls find no connection that has failed in a call before."""

    def __init__(self) -> None:
        super().__init__(1, "sync-to-async")
        self._last = 0.0  # when the last call ended, by the monotonic clock

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        def call() -> T:
            replace_dropped_connections(was_idle=time.monotonic() > self._last + IDLE_SECONDS)
            try:
                return fn(*args, **kwargs)
            finally:
                self._last = time.monotonic()

        return super().submit(call)


def install() -> None:
    """Make it the thread in which `sync_to_async` calls what no request has begun."""
    SyncToAsync.single_thread_executor = ReconnectingThread()
