"""Replace the database connections that the server has dropped, before a thread's next call.

Django looks after its connections when a request begins and ends. A consumer, a stream, a task and
a permission rule have neither: what they call of the ORM goes to a thread in which a connection
that was once dropped would be used for ever.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from asgiref.sync import SyncToAsync
from django.db import connections

T = TypeVar("T")

IDLE_SECONDS: Final = 1.0  # since the last call; then a connection is checked before the next

_thread = threading.local()


def replace_dropped_connections() -> None:
    """Close those of the thread's connections that have failed.

    With CONN_HEALTH_CHECKS, also those that have failed unnoticed since the call before.
    """
    close_suspects()
    now = time.monotonic()
    was_idle = now > getattr(_thread, "last_call", 0.0) + IDLE_SECONDS
    _thread.last_call = now
    # Those that are only old are kept, unlike by `close_old_connections`: between two calls of the
    # same thread a cursor may be open. Django itself checks none that a pool has given.
    for connection in connections.all(initialized_only=True):
        if connection.connection is None or connection.in_atomic_block:
            continue
        is_checked = was_idle and connection.settings_dict["CONN_HEALTH_CHECKS"]
        if connection.errors_occurred or is_checked:
            if connection.is_usable():
                connection.errors_occurred = False
            else:
                connection.close()
                check_pool(connection)


def close_suspects() -> None:
    """Close those of the thread's connections that may be silent, as another one was."""
    for connection in connections.all(initialized_only=True):
        is_suspect = getattr(connection.connection, "is_suspect", False)
        if is_suspect and not connection.in_atomic_block:
            connection.connection.close()  # itself, or its pool would lend it to others
            connection.close()


def check_pool(connection: Any) -> None:
    """Replace the idle connections of its pool that have failed: a server drops all of them."""
    pool = getattr(connection, "pool", None)  # Django has them for PostgreSQL
    if pool is not None and not pool.closed:  # it is closed until a connection opens it
        pool.check()


class ReconnectingThread(ThreadPoolExecutor):
    """One thread, whose calls find no connection that has failed in a call before."""

    def __init__(self) -> None:
        super().__init__(1, "sync-to-async")

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        def call() -> T:
            replace_dropped_connections()
            return fn(*args, **kwargs)

        return super().submit(call)


def install() -> None:
    """Make it the thread in which `sync_to_async` calls what no request has begun."""
    SyncToAsync.single_thread_executor = ReconnectingThread()
