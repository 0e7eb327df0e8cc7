"""The logs, each empty: what holds for all of them is tried with all of them."""

from collections.abc import Iterator

import pytest
from redis import Redis

from realtime.eventlog.base import EventLog
from realtime.eventlog.database import DatabaseLog
from realtime.eventlog.memory import MemoryLog
from realtime.eventlog.redis.log import RedisLog
from realtime.utils.background_loop import background_loop

from ..support.servers import Valkey
from .support import redis_log_at


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[Valkey]:
    """A Valkey for all tests that do not kill it."""
    running = Valkey()
    yield running
    running.stop()


@pytest.fixture
def redis_log(shared_valkey: Valkey) -> Iterator[RedisLog]:
    """The log in an empty Valkey."""
    with Redis.from_url(shared_valkey.url) as client:
        client.flushall()
    yield redis_log_at(shared_valkey.url)
    background_loop.stop()


@pytest.fixture(params=[DatabaseLog, MemoryLog, RedisLog])
def log(request: pytest.FixtureRequest) -> EventLog:
    """Each of the logs in turn."""
    return request.getfixturevalue("redis_log") if request.param is RedisLog else request.param()
