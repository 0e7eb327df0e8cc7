"""Threads for the synchronous parts of requests: a few for all, not one for each.

asgiref gives every request a thread of its own at the first `sync_to_async`, and takes it back when
the response has ended: an idle stream keeps its thread, and with it a database connection, for
hours; and a short request pays for starting a thread and joining it with another. Here a request
borrows one of a bounded number of threads. It always gets the same one, as thread-sensitive code
expects, until it has ended or streams. A thread is shared only where there are more requests.
"""

import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    InvalidStateError,
    ThreadPoolExecutor,
)
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from asgiref.sync import SyncToAsync, ThreadSensitiveContext

T = TypeVar("T")
Application = Callable[..., Coroutine[Any, Any, None]]


class RequestThread:
    """One thread, the calls that wait for it or run in it, and how many requests have it."""

    __slots__ = ("_name", "_started", "executor", "pending", "requests")

    def __init__(self, number: int) -> None:
        self._name = f"request-{number}"
        self.requests = 0
        self.renew()

    def renew(self) -> None:
        """Have another thread, at the next call."""
        self._started: list[threading.Thread] = []
        # Which must not refer to this: the thread would keep its executor, and that the thread.
        self.executor = ThreadPoolExecutor(
            1, self._name, initializer=_note, initargs=(self._started,)
        )
        self.pending: set[Future[Any]] = set()

    @property
    def is_dead(self) -> bool:
        """Return whether the thread has ended, as one does that has no memory.

        The executor takes it for one that works, and calls would wait for it for good.
        """
        return bool(self._started) and not self._started[0].is_alive()


class RequestThreads:
    """Lend at most `limit` threads; a request that finds all of them busy waits for its turn.

    `before_use` is called in a thread that a request has borrowed, before its first call there;
    `before_call` before each call.
    """

    def __init__(self, limit: int) -> None:
        self.before_use: list[Callable[[], None]] = []
        self.before_call: list[Callable[[], None]] = []
        self._limit = limit
        self._workers: list[RequestThread] = []
        self._lock = threading.Lock()

    def borrow(self) -> RequestThread:
        """Return a thread that no request has, or else a new one, or else that with least to do."""
        for each in self._workers:
            self._replace_dead(each)
        with self._lock:
            worker = min(self._workers, key=_load, default=None)
            if worker is None or (
                (worker.requests or worker.pending) and len(self._workers) < self._limit
            ):
                worker = RequestThread(len(self._workers) + 1)
                self._workers.append(worker)
            worker.requests += 1
            return worker

    def give_back(self, worker: RequestThread) -> None:
        """Undo `borrow`."""
        with self._lock:
            worker.requests -= 1

    def submit(self, worker: RequestThread, function: Callable[..., T], *args: Any) -> "Future[T]":
        """Call `function` in the worker's thread."""
        self._replace_dead(worker)
        try:
            future = worker.executor.submit(self._call, function, *args)
        except BrokenExecutor:  # by a thread that had no memory to begin
            worker.renew()
            raise
        with self._lock:
            worker.pending.add(future)
        future.add_done_callback(partial(self._done, worker))
        return future

    def _call(self, function: Callable[..., T], *args: Any) -> T:
        for callback in self.before_call:
            callback()
        return function(*args)

    def _done(self, worker: RequestThread, future: "Future[Any]") -> None:
        with self._lock:
            worker.pending.discard(future)

    def _replace_dead(self, worker: RequestThread) -> None:
        with self._lock:
            if not worker.is_dead:
                return
            lost = worker.pending
            worker.renew()
        for future in lost:
            with suppress(InvalidStateError):
                future.set_exception(MemoryError("The request's thread has ended"))


class BorrowedThread(Executor):
    """What asgiref takes for the request's own executor; borrows at the first call."""

    def __init__(self, threads: RequestThreads) -> None:
        self._threads = threads
        self._worker: RequestThread | None = None
        self._is_over = False

    def release(self, last: Callable[[], object] | None = None, *, is_over: bool = False) -> None:
        """Give the thread back, where one was borrowed; `last` is called in it then.

        A later call borrows again. After the end of the request one does so for itself alone: there
        is nothing left that would give it back.
        """
        self._is_over = self._is_over or is_over
        if self._worker is not None:
            if last is not None:
                self._threads.submit(self._worker, last)
            self._threads.give_back(self._worker)
            self._worker = None

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        worker = self._worker
        if worker is None:
            worker = self._worker = self._threads.borrow()
            for callback in self._threads.before_use:
                self._threads.submit(worker, callback)
        call = partial(fn, **kwargs) if kwargs else fn
        future = self._threads.submit(worker, call, *args)
        if self._is_over:
            self.release()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the thread is lent."""


def with_borrowed_threads(application: Application, threads: RequestThreads) -> Application:
    """`application`, whose HTTP requests borrow their threads from `threads`."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            # A context that is set already is left alone by the one Django enters. It is not
            # entered itself, because leaving it would forbid the thread to tasks that outlive the
            # request. The entry goes with the context, which goes with the request's task.
            context = ThreadSensitiveContext()
            borrowed = BorrowedThread(threads)
            SyncToAsync.context_to_thread_executor[context] = borrowed
            SyncToAsync.thread_sensitive_context.set(context)
            try:
                await application(scope, receive, send)
            finally:
                borrowed.release(is_over=True)
        else:
            await application(scope, receive, send)

    return run


def _note(started: list[threading.Thread]) -> None:
    started.append(threading.current_thread())


def _load(worker: RequestThread) -> tuple[int, int]:
    return len(worker.pending), worker.requests
