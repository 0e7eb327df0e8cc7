"""Requests borrow threads: few for all, and each request always the same one."""

import asyncio
import threading
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from realtime.server import request_threads
from realtime.server.request_threads import BorrowedThread, RequestThreads, with_borrowed_threads

from .support import Worker, eventually


def test_requests_one_after_another_share_one_thread(worker: Worker) -> None:
    names = {name for _ in range(10) for name in worker.get("/threads").decode().split()}
    assert len(names) == 1
    assert names.pop().startswith("request-")


def test_requests_at_once_have_different_threads_and_not_too_many(worker: Worker) -> None:
    with ThreadPoolExecutor(40) as clients:
        answers = list(clients.map(lambda _: worker.get("/threads"), range(40)))
    pairs = [answer.decode().split() for answer in answers]
    assert all(first == second for first, second in pairs), "a request changed its thread"
    names = {first for first, _ in pairs}
    assert 2 <= len(names) <= 16


def calls(count: int) -> "set[Future[Any]]":
    return {Future() for _ in range(count)}


def test_a_thread_that_has_died_is_replaced_and_its_calls_are_answered() -> None:
    """As one does that has no memory for what its executor does around a call."""
    threads, go_on = RequestThreads(2), threading.Event()
    own = BorrowedThread(threads)
    assert own.submit(int).result(10) == 0
    worker = threads._workers[0]
    running = own.submit(go_on.wait)
    worker.executor._work_queue.put(object())  # type: ignore[arg-type]
    waiting = own.submit(int)
    go_on.set()
    assert running.result(10)
    eventually(lambda: worker.is_dead)
    assert not waiting.done()
    other = BorrowedThread(threads)
    assert other.submit(lambda: 1).result(10) == 1  # another request's call, which finds it dead
    with pytest.raises(MemoryError):
        waiting.result(10)
    assert own.submit(lambda: 2).result(10) == 2  # the request itself goes on
    eventually(lambda: not worker.pending)


def test_a_thread_that_had_no_memory_to_begin_is_replaced(monkeypatch: Any) -> None:
    threads = RequestThreads(1)
    own = BorrowedThread(threads)
    with monkeypatch.context() as patched:
        patched.setattr(request_threads, "_note", refuse)
        with pytest.raises(BrokenExecutor):
            own.submit(int).result(10)
    with suppress(BrokenExecutor):
        own.submit(int)
    assert own.submit(lambda: 2).result(10) == 2
    eventually(lambda: not threads._workers[0].pending)


def refuse(started: list[threading.Thread]) -> None:
    raise MemoryError


def test_a_thread_that_a_request_has_is_lent_to_others_only_when_there_are_no_more() -> None:
    threads = RequestThreads(2)
    one = threads.borrow()
    two = threads.borrow()
    assert two is not one, "it is idle now, but not free"
    threads.give_back(one)
    assert threads.borrow() is one
    one.pending, two.pending = calls(1), calls(2)
    assert threads.borrow() is one, "a third thread"
    one.pending, two.pending = calls(2), calls(1)
    assert threads.borrow() is two


async def test_a_request_does_not_wait_for_the_slow_call_of_another() -> None:
    begun, blocked = asyncio.Event(), asyncio.Event()
    loop, go_on = asyncio.get_running_loop(), threading.Event()

    def block() -> None:
        loop.call_soon_threadsafe(blocked.set)
        go_on.wait(10)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await begun.wait()
            await sync_to_async(block)()
        else:
            await sync_to_async(int)()
            begun.set()
            await blocked.wait()
            await sync_to_async(int)()
            go_on.set()

    run = with_borrowed_threads(application, RequestThreads(16))
    try:
        async with asyncio.timeout(15):
            paths = "/quick", "/slow"
            await asyncio.gather(*(run({"type": "http", "path": p}, None, None) for p in paths))
    finally:
        go_on.set()


def test_a_thread_that_is_given_back_is_free_and_what_was_left_to_do_is_done() -> None:
    threads, done = RequestThreads(2), []

    def ident(borrowed: BorrowedThread) -> int:
        found = borrowed.submit(threading.get_ident).result()
        eventually(lambda: not any(worker.pending for worker in threads._workers))
        return found

    borrowed, other = BorrowedThread(threads), BorrowedThread(threads)
    borrowed.release()  # there is none
    first = ident(borrowed)
    borrowed.release(lambda: done.append(threading.get_ident()))
    eventually(lambda: done == [first] and not threads._workers[0].pending)
    assert ident(other) == first
    assert ident(borrowed) != first, "the other request has it"
    other.release(is_over=True)
    assert ident(other) == first, "from a task that outlives it"
    assert [worker.requests for worker in threads._workers] == [0, 1]


def test_shutting_down_the_borrowed_thread_leaves_it() -> None:
    borrowed = BorrowedThread(RequestThreads(1))
    assert borrowed.submit(int, "7").result() == 7
    borrowed.shutdown()
    assert borrowed.submit(int, "11", base=2).result() == 3


def test_what_is_done_before_a_request_uses_its_thread() -> None:
    done: list[str] = []

    def fail() -> None:
        done.append("failed")
        raise ZeroDivisionError

    lent = RequestThreads(1)
    lent.before_use = [fail, lambda: done.append("prepared")]
    first, second = BorrowedThread(lent), BorrowedThread(lent)
    assert done == [], "a request that needs no thread"
    first.submit(done.append, "used").result()
    first.submit(done.append, "used again").result()
    assert done == ["failed", "prepared", "used", "used again"]
    second.submit(done.append, "used").result()
    assert done[4:] == ["failed", "prepared", "used"], "it is another request's now"
