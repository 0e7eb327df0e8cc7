"""Readers of a feed, announcements from elsewhere, and a loop and a stage to run a hub on."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any
from unittest.mock import patch

from channels.layers import channel_layers
from django.test import override_settings

from realtime.delivery import hub as hub_module
from realtime.delivery import peers as peers_module
from realtime.delivery.bus.base import PEERS_TOPIC, Joined
from realtime.delivery.bus.envelope import to_message
from realtime.eventlog.base import EventLog
from realtime.events.event import Event
from realtime.events.position import Position

from .clock import InstantLoop
from .fakes import FakeLayer, FakeRegistry, FaultyLog


class Reader:
    """Reads a feed as a subscription does, and remembers what it was given."""

    def __init__(self) -> None:
        self.got: list[Event] = []
        self.wakes = 0

    def notify(self, events: Sequence[Event]) -> None:
        self.got += events
        self.wakes += not events

    def unsynced(self, position: Position, events: Sequence[Event]) -> None:
        raise NotImplementedError

    @property
    def offsets(self) -> list[int]:
        return [event.offset for event in self.got]


def instantly(main: Coroutine[Any, Any, None]) -> None:
    """Run on a clock that does not wait; nothing may be left running at the end."""

    async def run() -> None:
        await main
        await asyncio.sleep(10)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=InstantLoop) as runner:
        runner.run(run())


async def turns(count: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


def joined_elsewhere() -> dict[str, Any]:
    """What another process says that begins to listen."""
    return to_message(PEERS_TOPIC, Joined("another"))


def hello_from_elsewhere(*, interval: float = 2.0, is_asking: bool = False) -> dict[str, Any]:
    """What a process of the release before says again and again."""
    fields = {"process": "another", "every": interval, "asks": is_asking, "to": []}
    return {"type": "realtime.hello", **fields}


def from_elsewhere(*events: Event) -> dict[str, Any]:
    """An announcement as another process makes it."""
    return {**to_message(events[0].topic, events), "process": "another"}


@contextlib.contextmanager
def stage(
    layer: Any = None,
    log: EventLog | None = None,
    registry: FakeRegistry | None = None,
    **constants: Any,
) -> Iterator[tuple[Any, Any]]:
    """Run hubs of the test's own on this layer, log and register, with these settings."""
    layer = FakeLayer() if layer is None else layer
    log = FaultyLog() if log is None else log
    before = channel_layers.set("default", layer)
    options = {"PRUNE_INTERVAL_SECONDS": None, "EVENT_LOG": lambda: log, **constants}
    try:
        with (
            override_settings(REALTIME=options),
            patch.object(channel_layers, "make_backend", {"default": layer}.__getitem__),
            patch.object(peers_module, "registry", registry or FakeRegistry()),
        ):
            yield layer, log
    finally:
        if before is None:
            channel_layers.backends.pop("default", None)
        else:
            channel_layers.set("default", before)
        for loop in [loop for loop in hub_module._hubs if loop.is_closed()]:
            del hub_module._hubs[loop]
