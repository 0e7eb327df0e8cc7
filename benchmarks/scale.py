"""`python -m benchmarks.scale`: what many processes ask of the bus and the database, simulated.

The hubs, feeds, subscriptions, registers of peers and buses are the real ones, of many processes in
one event loop whose clock does not wait. Simulated is what is between them: a channel layer that
delays, repeats and loses messages, a log and a register of processes in memory whose calls are
counted and take their time.
"""

import argparse
import asyncio
import gc
import logging
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple
from unittest.mock import patch

import django
from django.conf import settings as django_settings
from django.test import override_settings

if not django_settings.configured:
    django_settings.configure(
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "realtime"],
        SECRET_KEY="simulated",
        CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    )
    django.setup()

from realtime import Subscription
from realtime.delivery import head_check, hub, peers, topic_subscriber
from realtime.delivery.announce import _deliver
from realtime.delivery.bus import envelope
from realtime.delivery.bus.channels import ChannelsBus
from realtime.delivery.hub import Hub
from realtime.eventlog.base import NewEvent
from realtime.events.event import Event
from realtime.utils import aio
from tests.support.clock import InstantLoop
from tests.support.fakes import Noise

from .page.text import number, table_of
from .simulated import CountedLog, LossyLayer, Register, current

SIZES: Final = ((2, 20_000), (16, 1_000), (128, 100), (800, 15))  # processes, topics of each
IDLE_SECONDS: Final = 30.0  # as long as one round of the idle topics
BUSY_SECONDS: Final = 30.0
EVENTS_A_SECOND: Final = 10  # by all together: a topic has one at most, so a lost one is its last
LOSS: Final = 0.2  # of the messages with events
NOISE: Final = {"repeat": 0.1, "delay": 1.0, "longest": 0.05}
STATEMENTS: Final = {"beat": 3, "changes": 1, "heads": 1, "read": 2}  # of a call, in the database
BLOCK: Final = re.compile(r"(?<=<!-- scale -->\n).*(?=<!-- end -->)", re.S)


class Result(NamedTuple):
    """What a second took while nothing was published, and when lost events were found."""

    processes: int
    topics: int  # of each process
    messages: float  # that processes send on the bus, with those to themselves
    renewals: float  # commands by which memberships of groups are renewed
    statements: float  # on the database
    heads: float  # topics compared with the log
    lost: int  # events of which the announcement was lost
    found: Sequence[float]  # seconds after they were stored
    topic_bytes: float  # of a process's memory, with its reader, group and log


class Process:
    """One process: a hub, and a reader for each of its topics."""

    def __init__(self, world: "World", number: int, topics: int) -> None:
        self.name = f"process{number}"
        self.topics = [f"user.{number}.{each}" for each in range(topics)]
        self._world = world
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        current.set(self)
        self.context = copy_context()  # by which its tasks know which process they are of
        self.hub = Hub()
        for topic in self.topics:
            self._world.log.append([NewEvent(topic, "message", "0")])
        for start in range(0, len(self.topics), 200):
            await asyncio.gather(*map(self._read, self.topics[start : start + 200]))

    async def _read(self, topic: str) -> None:
        subscription = Subscription()
        subscription.on_ready = lambda: self._world.take(subscription)
        self._subscriptions.append(subscription)
        await subscription.add(topic)

    def publish(self, topic: str) -> Event:
        (event,) = self._world.log.append([NewEvent(topic, "message", "1")])
        self.context.run(_deliver, self.hub, {topic: [event]}, is_sender=True)
        return event

    async def stop(self) -> None:
        self.context.run(self._close)
        if self.hub._closing is not None:
            await self.hub._closing

    def _close(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()


class World:
    """Processes, what is between them, and what was counted."""

    def __init__(self, processes: int, topics: int, seed: int) -> None:
        self.calls: Counter[str] = Counter()
        self.chance = random.Random(seed)
        self.layer = LossyLayer(self.calls, seed)
        self.log = CountedLog(self.calls, self.chance)
        self.processes = [Process(self, number, topics) for number in range(processes)]
        self.arrived: dict[tuple[str, int], list[float]] = {}
        self._taking: set[asyncio.Task[None]] = set()

    @contextmanager
    def installed(self, options: Mapping[str, float]) -> Iterator[None]:
        """Have the package use this world for its own."""
        own = {"PRUNE_INTERVAL_SECONDS": None, "EVENT_LOG": lambda: self.log}
        register = Register(self.calls)
        with ExitStack() as stack:
            for target, name, value in (
                (aio, "Context", copy_context),
                (hub, "make_bus", self._make_bus),
                (peers, "registry", register),
                (envelope, "this_process", register.this_process),
                (topic_subscriber, "get_hub", lambda: current.get().hub),
                (head_check, "FEW_TOPICS", 0),  # as if each process had many
            ):
                stack.enter_context(patch.object(target, name, value))
            stack.enter_context(override_settings(REALTIME=own | dict(options)))
            yield

    def _make_bus(self, logger: logging.Logger, *, is_listening: bool = False) -> ChannelsBus:
        return ChannelsBus(self.layer, logger, is_authentic=True)

    def take(self, subscription: Subscription) -> None:
        task = asyncio.get_running_loop().create_task(self._take(subscription))
        self._taking.add(task)
        task.add_done_callback(self._taking.discard)

    async def _take(self, subscription: Subscription) -> None:
        async for item in subscription.ready():
            if isinstance(item, Event):
                now = asyncio.get_running_loop().time()
                self.arrived.setdefault((item.topic, item.offset), []).append(now)

    async def run(self) -> Result:
        size, topics = len(self.processes), len(self.processes[0].topics)
        before = resident_bytes()
        await asyncio.gather(*(asyncio.create_task(each.start()) for each in self.processes))
        await asyncio.sleep(15)  # they are new no more
        grown = resident_bytes() - before
        self.layer.noise = Noise(self.chance.randrange(2**32), **NOISE)
        self.calls.clear()
        await asyncio.sleep(IDLE_SECONDS)
        idle = self.calls.copy()
        stored = await self._publish()
        await asyncio.sleep(30)
        for each in self.processes:
            await each.stop()
        for place in stored:
            assert len(self.arrived.get(place, ())) == 1, f"{place} came not once"
        statements = sum(idle[call] * count for call, count in STATEMENTS.items())
        return Result(
            size,
            topics,
            idle["messages"] / IDLE_SECONDS,
            idle["renewals"] / IDLE_SECONDS,
            statements / IDLE_SECONDS,
            idle["topics"] / IDLE_SECONDS,
            len(self.layer.lost),
            sorted(self.arrived[place][0] - stored[place] for place in self.layer.lost),
            grown / size / topics,
        )

    async def _publish(self) -> dict[tuple[str, int], float]:
        """Publish by other processes than those that read; when, by topic and offset."""
        stored = {}
        count = int(BUSY_SECONDS * EVENTS_A_SECOND)
        readers = [(each, topic) for each in self.processes for topic in each.topics]
        self.layer.loss = LOSS
        for reader, topic in self.chance.sample(readers, min(count, len(readers))):
            others = [each for each in self.processes if each is not reader]
            event = self.chance.choice(others).publish(topic)
            stored[topic, event.offset] = asyncio.get_running_loop().time()
            await asyncio.sleep(self.chance.expovariate(EVENTS_A_SECOND))
        return stored


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


def simulate(processes: int, topics: int, seed: int, **options: float) -> Result:
    """Run so many processes for some minutes of their time, with these settings."""
    world = World(processes, topics, seed)
    with world.installed(options), asyncio.Runner(loop_factory=InstantLoop, debug=False) as runner:
        return runner.run(world.run())


def simulate_alone(processes: int, topics: int, seed: int) -> Result:
    """Run in a process of its own: what others leave behind would count as memory that is free."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(simulate, processes, topics, seed).result()


def percentile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


def page_table(results: Sequence[Result]) -> str:
    head = (
        "processes", "topics of each", "messages/s on the bus", "renewals/s", "statements/s",
        "topics compared/s", "lost", "found after, p50", "p100", "memory a topic",
    )  # fmt: skip
    rows = [
        [
            f"{each.processes:,}",
            f"{each.topics:,}",
            number(each.messages),
            number(each.renewals),
            number(each.statements),
            number(each.heads),
            str(each.lost),
            f"{percentile(each.found, 0.5):.1f} s",
            f"{each.found[-1]:.1f} s",
            f"{each.topic_bytes / 1_024:.1f} KiB",
        ]
        for each in results
    ]
    return table_of(head, rows)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="a page whose table is written anew")
    options = parser.parse_args(arguments)
    results = []
    for processes, topics in SIZES:
        began = time.monotonic()
        results.append(simulate_alone(processes, topics, options.seed))
        print(f"{processes} processes: {time.monotonic() - began:.0f} s", file=sys.stderr)
    text = page_table(results)
    print(text)
    if options.output is not None:
        page = options.output.read_text()
        options.output.write_text(BLOCK.sub(lambda _: f"\n{text.strip()}\n\n", page))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
