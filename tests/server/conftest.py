"""One server per module for what leaves no trace, one per test for what does."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from .support import Worker


@pytest.fixture(scope="session", autouse=True)
def _no_connection_left() -> None:
    """These tests have no database; the suite's own fixture would make one."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Worker]:
    """A server with the default options, for the whole module."""
    worker = Worker("--no-server-name")
    yield worker
    worker.stop()


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    """Starts servers, and stops them after the test."""
    workers: list[Worker] = []

    def run(*options: str, **more: Any) -> Worker:
        workers.append(Worker(*options, **more))
        return workers[-1]

    yield run
    with ExitStack() as stack:
        for worker in workers:
            stack.callback(worker.stop)


@pytest.fixture(scope="session")
def _pool() -> Iterator[list[Worker]]:
    workers: list[Worker] = []
    yield workers
    for worker in workers:
        worker.stop()


@pytest.fixture
def worker(_pool: list[Worker]) -> Iterator[Worker]:
    """A server with the default options, where nothing has happened and nothing runs.

    It is the last test's if that left it alive and idle: starting one takes most of a second.
    """
    if not _pool or not _pool[-1].reset():
        while _pool:
            _pool.pop().stop()
        _pool.append(Worker())
        # What the first request takes is not what a test measures which happens to come first.
        assert _pool[-1].reset()
    yield _pool[-1]
    _pool[-1].check()
