"""Buses that listen, and what another process sends on them."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from typing import Any

import pytest
from django.test import override_settings

from realtime.delivery.bus.base import MISSED, Bus, Message
from realtime.delivery.bus.connected import ConnectedBus
from realtime.events.event import Event
from realtime.processes.registry import this_process

LOGGER = logging.getLogger("realtime.hub")
QUICK = {"HEAD_CHECK_SECONDS": 0.3, "ANNOUNCE_TIMEOUT_SECONDS": 5.0}
Heard = asyncio.Queue[tuple[str, Message]]


def cursor(topic: str, data: str = "true") -> Event:
    return Event(topic, "cursor", data)


def tell_processes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what `send` sends come from another process."""

    def process() -> str:
        task = asyncio.current_task()
        return "elsewhere" if task and task.get_name() == "elsewhere" else this_process()

    monkeypatch.setattr("realtime.delivery.bus.envelope.this_process", process)
    # redis-py looks it up on the disk for each connection, which blocks the loop: not our doing.
    monkeypatch.setattr("redis.utils.get_lib_version", lambda: "0")


async def send(bus: Bus, *events: Event) -> bool:
    """Send as another process."""
    return await asyncio.create_task(bus.send(events[0].topic, events), name="elsewhere")


@asynccontextmanager
async def listening(
    kind: type[ConnectedBus], settings: Mapping[str, Any], *topics: str
) -> AsyncIterator[tuple[Any, Heard]]:
    """A bus that has joined topics, and says so; it leaves no task."""
    before = asyncio.all_tasks()
    heard: Heard = asyncio.Queue()
    with override_settings(REALTIME={**QUICK, **settings}):
        bus = kind(LOGGER)
        bus.start(lambda topic, message: heard.put_nowait((topic, message)))
        bus.join(topics)
        try:
            async with asyncio.timeout(60):
                await bus.settled()
                assert {await heard.get() for _ in topics} == {(topic, MISSED) for topic in topics}
                yield bus, heard
        finally:
            async with asyncio.timeout(20):
                await bus.stop()
                if senders := getattr(sys.modules[kind.__module__], "_senders", None):
                    await senders.get().aclose()
                while asyncio.all_tasks() - before - {asyncio.current_task()}:
                    await asyncio.sleep(0.01)


@contextmanager
def counted_turns() -> Iterator["count[int]"]:
    """Count the turns of the running loop until the end of the block; the next number is theirs."""
    turns = count()

    async def tick() -> None:
        while True:
            await asyncio.sleep(0)
            next(turns)

    ticking = asyncio.create_task(tick())
    try:
        yield turns
    finally:
        ticking.cancel()
