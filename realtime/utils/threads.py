"""The few threads in which this package does its database work.

An idle stream must hold no thread and no connection, so nothing here is per stream: the whole
process shares `DATABASE_THREADS` threads, and each keeps one connection.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from asgiref.sync import SyncToAsync
from django.core.signals import request_started
from django.db import Error as DatabaseError
from django.db import (
    InterfaceError,
    OperationalError,
    close_old_connections,
    connections,
    reset_queries,
)

from ..conf import settings
from ..server.request_threads import BEFORE_USE

P = ParamSpec("P")
T = TypeVar("T")

_lock = threading.Lock()
_executor: ThreadPoolExecutor | None = None


def _forget() -> None:
    """In a process that was forked off there are no threads, whatever the executor believes."""
    global _lock, _executor
    _lock, _executor = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _pool() -> ThreadPoolExecutor:
    global _executor
    with _lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(settings.DATABASE_THREADS, "realtime-database")
        return _executor


async def in_database_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in one of the shared threads, in autocommit, on that thread's connection.

    Any thread that is free takes it: don't count on a transaction of the caller. The connection
    stays open for the next caller, and is closed after an error of the database.
    """
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_pool(), lambda: _run(lambda: function(*args, **kwargs)))


async def read_in_database_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `in_database_thread`, for what may be done twice: a connection that the database server
    has dropped in the meantime is replaced without the caller noticing."""

    def read() -> T:
        try:
            return _run(lambda: function(*args, **kwargs))
        except (InterfaceError, OperationalError):
            return _run(lambda: function(*args, **kwargs))

    return await asyncio.get_running_loop().run_in_executor(_pool(), read)


async def release_request_thread() -> None:
    """Give back what Django gave the running request: its database connection and, where the
    server does not lend threads, its thread. A response calls this before it streams for hours."""
    context = SyncToAsync.thread_sensitive_context.get(None)
    if context is None:
        return
    executor = SyncToAsync.context_to_thread_executor.get(context)
    if executor is None:
        return
    if isinstance(executor, ThreadPoolExecutor):
        # asgiref's own, made for this request: it would stay until the response has ended. Code
        # that needs a thread later gets a new one.
        SyncToAsync.context_to_thread_executor.pop(context, None)
        executor.submit(connections.close_all)
        executor.shutdown(wait=False)
    elif not getattr(executor, "unused", False):
        # Lent by the server. Not awaited: the first byte need not wait for it, and whatever the
        # request does in its thread later comes after it.
        executor.submit(close_old_connections)


def prepare_threads_when_used() -> None:
    """Where the server lends threads: what Django does in the request's thread when a request
    starts is done when the request first uses that thread, which most never do. Django would wait
    for a thread each time, the others' requests with it where the processor is busy."""
    for receiver in (reset_queries, close_old_connections):
        if request_started.disconnect(receiver):
            BEFORE_USE.append(receiver)


def close_connections() -> None:
    """End the shared threads and their connections; the next use starts new ones."""
    global _executor
    with _lock:
        executor, _executor = _executor, None
    if executor is None:
        return
    # A barrier sends each thread to close its own connection: Django forbids doing it for another.
    # All that there may be, or one that is still at work would be passed over for a new one.
    threads = executor._max_workers
    barrier = threading.Barrier(threads)

    def close() -> None:
        barrier.wait()
        connections.close_all()

    for _ in range(threads):
        executor.submit(close)
    executor.shutdown()


def _run(function: Callable[[], T]) -> T:
    try:
        return function()
    except DatabaseError as error:
        connections.close_all()
        if isinstance(error, InterfaceError | OperationalError):
            _check_pools()
        raise


def _check_pools() -> None:
    """A server that dropped one connection has dropped those that lie idle in the pool as well."""
    for connection in connections.all(initialized_only=True):
        pool = getattr(connection, "pool", None)  # Django has them for PostgreSQL
        if pool is not None:
            pool.check()
