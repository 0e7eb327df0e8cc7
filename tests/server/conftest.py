"""One server per module for what leaves no trace, one per test for what does."""

from collections.abc import Callable, Iterator
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
    for worker in workers:
        worker.stop()


@pytest.fixture
def worker(start: Callable[..., Worker]) -> Worker:
    """A server with the default options."""
    return start()
