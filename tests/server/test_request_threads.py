"""Requests borrow threads: few for all, and each request always the same one."""

from concurrent.futures import ThreadPoolExecutor

from realtime.server.request_threads import BorrowedThread, RequestThreads

from .support import Worker


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


def test_the_least_busy_thread_is_lent() -> None:
    threads = RequestThreads(2)
    one = threads.borrow()
    assert threads.borrow() is one, "an idle thread will do"
    one.pending = 1
    two = threads.borrow()
    assert two is not one
    two.pending = 2
    assert threads.borrow() is one, "a third thread"


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
