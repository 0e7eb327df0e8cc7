"""What the tests of the logs share; most of it is for the one in the database."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from asgiref.sync import async_to_sync
from django.db import connections, transaction
from django.test import override_settings
from django.utils import timezone

from realtime import models
from realtime.eventlog.base import NewEvent, Page
from realtime.eventlog.database import DatabaseLog
from realtime.eventlog.redis.log import RedisLog
from realtime.events.event import Event
from realtime.events.position import Position

log = DatabaseLog()


def read(topic: str, after: Position, limit: int = 1_000) -> Page:
    return async_to_sync(log.read)(topic, after, limit)


def append(topic: str, type: str, data: str) -> Event:
    (event,) = log.append([NewEvent(topic, type, data)])
    return event


def fill(topic: str, count: int, data: str = "1") -> str:
    """Append `count` events; the topic's epoch."""
    for _ in range(count):
        event = append(topic, "message", data)
    return event.epoch


def offsets(topic: str) -> list[int]:
    rows = models.Event.objects.filter(topic__name=topic).order_by("offset")
    return list(rows.values_list("offset", flat=True))


def age(topic: str, seconds: dict[int, float]) -> None:
    for offset, old in seconds.items():
        rows = models.Event.objects.filter(topic__name=topic, offset=offset)
        assert rows.update(created=timezone.now() - timedelta(seconds=old)) == 1


def forget(topic: str, upto: int) -> None:
    models.Event.objects.filter(topic__name=topic, offset__lte=upto).delete()


class Threads:
    """Runs functions in threads that let go of their connections, and raises what they raised."""

    def __init__(self, count: int) -> None:
        self.executor = ThreadPoolExecutor(count)
        self.futures = []

    def __enter__(self) -> "Threads":
        return self

    def start(self, function: Callable[..., object], *args: object) -> None:
        def run() -> object:
            try:
                return function(*args)
            finally:
                connections.close_all()

        self.futures.append(self.executor.submit(run))

    def __exit__(self, *error: object) -> None:
        self.executor.shutdown()
        for future in self.futures:
            future.result()


@contextmanager
def locked(*topics: str) -> Iterator[None]:
    """As by a long transaction that has published."""
    is_locked, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            for topic in topics:
                log.append([message(topic, 0)])
            is_locked.set()
            is_over.wait(60)

    with Threads(1) as threads:
        threads.start(hold)
        assert is_locked.wait(10)
        try:
            yield
        finally:
            is_over.set()


def after_first_call(owner: Any, name: str, then: Callable[[], object]) -> Any:
    """Patch a function or method so that something happens right after its first result."""
    original, calls = getattr(owner, name), []

    def function(*args: Any) -> Any:
        result = original(*args)
        calls.append(name)
        if len(calls) == 1:
            then()
        return result

    return patch.object(owner, name, function)


async def aappend(event: NewEvent) -> Event:
    [stored] = await log.aappend([event])
    return stored


def append_together(*events: NewEvent) -> list[Event | BaseException]:
    """What each of several publishers is answered whose calls come in one batch."""

    async def main() -> list[Event | BaseException]:
        calls = [aappend(event) for event in events]
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(main())


def message(topic: str, number: int) -> NewEvent:
    return NewEvent(topic, "message", str(number))


@contextmanager
def failing_once(
    owner: Any, name: str, error: Exception | None, *, is_done: bool = True
) -> Iterator[list[str]]:
    """The first call of a method raises, though what it does is done; the calls."""
    original, calls = getattr(owner, name), []

    def method(*args: Any) -> Any:
        calls.append(name)
        result = original(*args) if is_done or len(calls) > 1 else None
        if error is not None and len(calls) == 1:
            raise error
        return result

    with patch.object(owner, name, method):
        yield calls


def redis_log_at(url: str, **more: Any) -> RedisLog:
    """A log with settings of its own."""
    with override_settings(REALTIME={"REDIS_LOG_URL": url, **more}):
        return RedisLog()
