"""The few threads in which this package works with databases and files.

An idle stream must hold no thread and no connection, so nothing here is per stream: the whole
process shares `DATABASE_THREADS` threads for its events, and `TRANSFER_THREADS` others for what
responses read. A slow query of an export must not keep an event waiting.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

from asgiref.sync import SyncToAsync
from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, close_old_connections, connections

from ..conf import settings
from .reconnect import check_pool

P = ParamSpec("P")
T = TypeVar("T")


class ThreadPool:
    """Threads that the whole process shares, as many as a setting says; each keeps a connection.

    Any thread that is free takes a call, in autocommit: don't count on a transaction of the caller.
    After an error of the database the thread's connection is closed. One from a pool goes back
    after each call, unless `keeps_pooled`.
    """

    def __init__(self, name: str, setting: str, *, keeps_pooled: bool) -> None:
        self._name = name
        self._setting = setting
        self._keeps_pooled = keeps_pooled
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        # In a process that was forked off there are no threads, whatever the executor believes.
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._size = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns in one of the threads."""
        return await asyncio.wrap_future(self.submit(function, *args, **kwargs))

    async def run_twice(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, for what may be done twice.

        A connection that the database server has dropped in the meantime is replaced without the
        caller noticing.
        """
        call = partial(self._call, partial(function, *args, **kwargs))

        def twice() -> T:
            try:
                return call()
            except (InterfaceError, OperationalError):
                return call()

        return await asyncio.wrap_future(self._threads().submit(twice))

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Call `function` in one of the threads, and return its future."""
        return self._threads().submit(self._call, partial(function, *args, **kwargs))

    def close(self) -> None:
        """End the threads and their connections; the next use starts new ones."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is None:
            return
        # A barrier sends each thread to close its own connection: Django forbids doing it for
        # another. All that there may be, or one that is still at work would be passed over for a
        # new one.
        barrier = threading.Barrier(self._size)

        def close() -> None:
            barrier.wait()
            connections.close_all()

        for _ in range(self._size):
            executor.submit(close)
        executor.shutdown()

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None:
                self._size = getattr(settings, self._setting)
                self._executor = ThreadPoolExecutor(self._size, self._name)
            return self._executor

    def _call(self, function: Callable[[], T]) -> T:
        try:
            return function()
        except DatabaseError as error:
            connections.close_all()
            if isinstance(error, InterfaceError | OperationalError):
                for connection in connections.all(initialized_only=True):
                    check_pool(connection)
            raise
        finally:
            if not self._keeps_pooled:
                _give_back()


DATABASE: Final = ThreadPool("realtime-database", "DATABASE_THREADS", keeps_pooled=True)
TRANSFER: Final = ThreadPool("realtime-transfer", "TRANSFER_THREADS", keeps_pooled=False)


async def release_request_thread() -> None:
    """Give back what Django gave the running request.

    Its database connection and, where the server does not lend threads, its thread. A response
    calls this before it streams for hours.
    """
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
    elif (release := getattr(executor, "release", None)) is not None:
        # Lent by the server. Not awaited: the first byte need not wait for it.
        release(close_old_connections)


def _give_back() -> None:
    for connection in connections.all(initialized_only=True):
        # Unpooled ones are kept for the next caller: opening one costs more than a page.
        if getattr(connection, "pool", None) is not None:
            connection.close()
