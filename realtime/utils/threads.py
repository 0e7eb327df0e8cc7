"""The few threads in which this package works with databases and files.

An idle stream must hold no thread and no connection, so nothing here is per stream: the whole
process shares `DATABASE_THREADS` threads for its events, and `TRANSFER_THREADS` others for what
responses read. A slow query of an export must not keep an event waiting.
"""

import asyncio
import os
import threading
import time
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, Final, ParamSpec, TypeVar

from asgiref.sync import SyncToAsync
from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, close_old_connections, connections

from ..conf import settings
from ..metrics.series import Gauge
from .reconnect import check_pool, close_suspects
from .thread_results import ThreadResult, answer

P = ParamSpec("P")
T = TypeVar("T")

STUCK_SECONDS: Final = 2.0  # after which a call no longer counts as one that soon ends
CLOSE_SECONDS: Final = 5.0  # for the calls under way when the threads are ended


class ThreadPool:
    """Threads that the whole process shares, as many as a setting says; each keeps a connection.

    The free thread that worked last takes a call: what its connection has cached is still true, as
    SQLite's pages. It is in autocommit: don't count on a transaction of the caller.
    After an error of the database the thread's connection is closed. One from a pool goes back
    after each call, unless `keeps_pooled`. For each call that takes longer than `STUCK_SECONDS`
    there may be one thread more, up to twice as many, and no thread keeps the process from its end.
    """

    def __init__(self, name: str, setting: str, *, keeps_pooled: bool) -> None:
        self._name = name
        self._setting = setting
        self._keeps_pooled = keeps_pooled
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        # In a process that was forked off there are no threads.
        self._lock = threading.Lock()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._asleep: list[threading.Lock] = []  # by its lock a thread is woken
        self._threads: dict[threading.Thread, float | None] = {}  # when its call began
        self._numbers = count()
        self._watched_until = 0.0

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
            except (InterfaceError, OperationalError) as error:
                if type(error.__cause__).__name__ == "PoolTimeout":
                    raise  # the pool has none to give: the second time would take as long
                return call()

        return await asyncio.wrap_future(self._submit(twice))

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Call `function` in one of the threads, and return its future."""
        return self._submit(partial(self._call, partial(function, *args, **kwargs)))

    @property
    def busy(self) -> int:
        """Return how many threads are at work."""
        return sum(begun is not None for begun in list(self._threads.values()))

    def close(self) -> None:
        """End the threads and their connections; the next use starts new ones.

        Waits for the calls under way, no longer than `CLOSE_SECONDS` for all of them.
        """
        with self._lock:
            ended, self._threads = self._threads, {}
            while self._asleep:
                self._wake()
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in list(ended):
            if thread.is_alive():  # else it has not begun yet, and ends when it does
                thread.join(max(0.0, deadline - time.monotonic()))

    def _submit(self, call: Callable[[], T]) -> "Future[T]":
        future: Future[T] = ThreadResult()
        with self._lock:
            idle = sum(begun is None for begun in self._threads.values())
            # Before the call is there: one that raised for want of a thread is not made later.
            if len(self._calls) >= idle:
                self._add_thread()
                self._start_watch()
            self._calls.append((future, call))
            self._wake()
        return future

    def _wake(self) -> None:
        if self._asleep:
            self._asleep.pop().release()

    def _sleep(self) -> None:
        """Let go of the pool's lock until the thread is woken."""
        mine = threading.Lock()
        mine.acquire()
        self._asleep.append(mine)
        self._lock.release()
        try:
            mine.acquire()
        finally:
            self._lock.acquire()

    def _start_watch(self) -> None:
        now = time.monotonic()
        if self._watched_until < now:
            _start(threading.Thread(target=self._watch, name=f"watch-{self._name}", daemon=True))
            self._watched_until = now + 2 * STUCK_SECONDS

    def _add_thread(self) -> None:
        if len(self._threads) < self._limit():
            name = f"{self._name}_{next(self._numbers)}"
            work = partial(self._work, self._threads)
            _start(thread := threading.Thread(target=work, name=name, daemon=True))
            self._threads[thread] = None

    def _watch(self) -> None:
        """Add threads in the place of those that are stuck or dead, for as long as calls wait."""
        while True:
            time.sleep(STUCK_SECONDS)
            with self._lock:
                for thread in [each for each in self._threads if not each.is_alive()]:
                    del self._threads[thread]  # one that begins so late is back then
                if not self._calls:
                    self._watched_until = 0.0
                    return
                self._watched_until = time.monotonic() + 2 * STUCK_SECONDS
                with suppress(RuntimeError):  # no thread is to be had now; perhaps later
                    self._add_thread()

    def _limit(self) -> int:
        """Return how many threads there may be now."""
        size: int = getattr(settings, self._setting)
        before = time.monotonic() - STUCK_SECONDS
        stuck = sum(begun is not None and begun < before for begun in self._threads.values())
        return size + min(size, stuck)

    def _work(self, threads: dict[threading.Thread, float | None]) -> None:
        me = threading.current_thread()
        try:
            while (call := self._next_call(me, threads)) is not None:
                answer(*call)
                del call  # an idle thread keeps nothing alive
        finally:
            threads.pop(me, None)
            connections.close_all()

    def _next_call(
        self, me: threading.Thread, threads: dict[threading.Thread, float | None]
    ) -> "tuple[Future[Any], Callable[[], Any]] | None":
        """Return what this thread has to do next; None if it has to end."""
        with self._lock:
            threads[me] = None
            while not self._calls:
                if threads is not self._threads:
                    return None
                self._sleep()
            if len(threads) > self._limit():
                del threads[me]
                self._wake()
                self._start_watch()  # the others may get stuck before they take the call
                return None
            threads[me] = time.monotonic()
            return self._calls.popleft()

    def _call(self, function: Callable[[], T]) -> T:
        close_suspects()
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

BUSY: Final = Gauge(
    "realtime_database_threads_busy",
    "Of `DATABASE_THREADS`, those that are at work.",
    read=lambda: DATABASE.busy,
)


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


def _start(thread: threading.Thread) -> None:
    # In a thread of its own: `start` waits for ever for one that dies before it runs, as it does
    # where memory is short.
    start_new_thread(thread.start, ())


def _give_back() -> None:
    for connection in connections.all(initialized_only=True):
        # Unpooled ones are kept for the next caller: opening one costs more than a page.
        if getattr(connection, "pool", None) is not None:
            connection.close()
