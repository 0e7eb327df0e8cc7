"""The main job on real input, with faults: `python -m tests.main_job`.

Two workers behind one port and a real broker, Valkey or that of the bus that `--bus` names; 200
WebSocket and 200 SSE subscribers on 5 topics; 4 publishers with 1,000 events. A third of the way
the broker is killed, at half it is restarted, and at two thirds one worker is killed with SIGKILL.
Every subscriber reconnects with its position. At the end what each of them has is compared with
the log that `--log` names, event by event.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import httpx_sse
import websockets

from .support.brokers import BROKERS, Broker
from .support.databases import new_database_url
from .support.servers import TOKENS, SiteServer, Valkey, manage, prepare_site, serving

PACE_SECONDS = 0.02  # between two events of a publisher, or all are out before anything breaks
SETTLE_SECONDS = 30.0  # after the last event, for every subscriber to have it


@dataclass
class Report:
    """What came of it."""

    published: int = 0
    expected: int = 0
    received: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    resets: int = 0
    reconnects: int = 0
    missing_from_log: int = 0
    seconds: float = 0.0

    @property
    def is_clean(self) -> bool:
        """Every event exactly once, in order, for everybody."""
        wrong = self.lost + self.duplicated + self.out_of_order + self.missing_from_log
        return self.expected > 0 and self.received == self.expected and not wrong + self.resets

    def __str__(self) -> str:
        names = {
            "published": "published and acknowledged",
            "missing_from_log": "acknowledged but not in the log",
            "expected": "deliveries expected",
            "received": "deliveries received",
            "lost": "lost",
            "duplicated": "duplicated",
            "out_of_order": "out of order",
            "resets": "told that history is gone",
            "reconnects": "reconnects",
        }
        lines = [f"{text:<34}{getattr(self, name):>9,}" for name, text in names.items()]
        return "\n".join([*lines, f"{'seconds':<34}{self.seconds:>9.1f}"])


@dataclass
class Subscriber:
    """One client that keeps its position."""

    base: str
    topic: str
    token: str
    ids: list[str] = field(default_factory=list)
    position: str = "0"
    connections: int = 0
    resets: int = 0
    reset_at: int = 0  # how many ids it had when it was told the last time

    def take(self, event_id: str) -> None:
        self.ids.append(event_id)
        self.position = event_id

    def reset(self, position: str) -> None:
        self.resets += 1
        self.reset_at = len(self.ids)
        self.position = position

    async def run(self) -> None:
        """Read, and come back whenever the connection ends, until cancelled."""
        while True:
            with suppress(OSError, httpx.HTTPError, websockets.WebSocketException):
                await self.read()
            await asyncio.sleep(random.uniform(0.05, 0.3))

    async def read(self) -> None:
        raise NotImplementedError


class WebSocketSubscriber(Subscriber):
    """Over `/ws/topics/<topic>`."""

    async def read(self) -> None:
        url = f"ws{self.base[4:]}/ws/topics/{self.topic}?after={self.position}"
        headers = {"Authorization": f"Bearer {self.token}"}
        async with websockets.connect(url, additional_headers=headers, proxy=None) as socket:
            self.connections += 1
            async for text in socket:
                message = json.loads(text)
                if message["type"] == "event":
                    self.take(message["id"])
                elif message["type"] == "reset":
                    self.reset(message["id"])
                elif message["type"] == "ping":
                    await socket.send('{"type": "pong"}')


class StreamSubscriber(Subscriber):
    """Over `/topics/<topic>/events`."""

    client: httpx.AsyncClient

    async def read(self) -> None:
        headers = {"Authorization": f"Bearer {self.token}", "Last-Event-ID": self.position}
        url = f"{self.base}/topics/{self.topic}/events"
        async with httpx_sse.aconnect_sse(self.client, "GET", url, headers=headers) as source:
            source.response.raise_for_status()
            self.connections += 1
            async for event in source.aiter_sse():
                if event.event == "reset":
                    self.reset(event.id)
                elif event.data:
                    self.take(event.id)
                self.position = event.id or self.position


async def publish(
    base: str, token: str, jobs: asyncio.Queue[tuple[str, int]], done: list[str]
) -> None:
    """Publish until there are no jobs; what is not acknowledged is published again."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers, timeout=10, trust_env=False) as client:
        while not jobs.empty():
            topic, number = jobs.get_nowait()
            while True:
                with suppress(httpx.HTTPError):
                    url = f"{base}/topics/{topic}/events"
                    answer = await client.post(url, json={"number": number})
                    if answer.status_code == 201:
                        done.append(f"{topic} {answer.json()['id']}")
                        break
                await asyncio.sleep(0.05)
            await asyncio.sleep(PACE_SECONDS)


Faults: TypeAlias = Callable[[SiteServer, Broker, list[str], int], Coroutine[Any, Any, None]]


async def break_things(server: SiteServer, broker: Broker, done: list[str], total: int) -> None:
    """Kill the broker at a third and start it at half; kill a worker at two thirds."""
    while len(done) < total / 3:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(broker.kill)
    print(f"  {len(done)} published: broker killed", flush=True)
    while len(done) < total / 2:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(broker.start)
    print(f"  {len(done)} published: broker started again, empty", flush=True)
    while len(done) < total * 2 / 3:
        await asyncio.sleep(0.01)
    pid = server.busiest_worker()
    os.kill(pid, signal.SIGKILL)
    print(f"  {len(done)} published: worker {pid} killed with SIGKILL", flush=True)
    assert len(done) < total, "everything was published before the worker was killed"


async def restart(server: SiteServer, broker: Broker, done: list[str], total: int) -> None:
    """Replace the workers one at a time, as a deployment does."""
    while len(done) < total / 3:
        await asyncio.sleep(0.01)
    before = set(server.worker_pids())
    server.process.send_signal(signal.SIGHUP)
    while before & set(server.worker_pids()):
        await asyncio.sleep(0.05)
    print(f"  {len(done)} published: the workers have been replaced", flush=True)


async def drive(
    server: SiteServer,
    broker: Broker,
    token: str,
    faults: Faults,
    *,
    sockets: int,
    topics: int,
    events: int,
) -> tuple[list[Subscriber], list[str]]:
    """Subscribers, publishers and faults; returns the subscribers and what was acknowledged."""
    names = [f"room.{number}" for number in range(topics)]
    limits = httpx.Limits(max_connections=None)
    timeout = httpx.Timeout(10, read=30)
    done: list[str] = []
    async with httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False) as client:
        StreamSubscriber.client = client
        subscribers = [
            kind(server.url, names[number % topics], token)
            for kind in (WebSocketSubscriber, StreamSubscriber)
            for number in range(sockets)
        ]
        readers = [asyncio.create_task(subscriber.run()) for subscriber in subscribers]
        while not all(subscriber.connections for subscriber in subscribers):
            await asyncio.sleep(0.05)
        print(f"  {len(subscribers)} subscribers connected", flush=True)
        jobs: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        for number in range(events):
            jobs.put_nowait((names[number % topics], number))
        breaking = asyncio.create_task(faults(server, broker, done, events))
        await asyncio.gather(*(publish(server.url, token, jobs, done) for _ in range(4)))
        await breaking
        heads = {line.split()[0]: line for line in sorted(done, key=_offset)}
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline and not all(
            _offset(subscriber.position) >= _offset(heads[subscriber.topic])
            for subscriber in subscribers
        ):
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)  # for what should not come any more: duplicates
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    return list(subscribers), done


def compare(
    subscribers: Iterable[Subscriber], acknowledged: list[str], log: dict[str, list[str]]
) -> Report:
    """Each subscriber's events against the log of its topic."""
    report = Report(published=len(acknowledged))
    logged = {f"{topic} {event_id}" for topic, ids in log.items() for event_id in ids}
    report.missing_from_log = len(set(acknowledged) - logged)
    for subscriber in subscribers:
        expected = log[subscriber.topic]
        counts = Counter(subscriber.ids)
        report.expected += len(expected)
        report.received += len(subscriber.ids)
        report.lost += len(set(expected) - set(counts))
        report.duplicated += sum(count - 1 for count in counts.values())
        offsets = [_offset(event_id) for event_id in subscriber.ids]
        report.out_of_order += sum(a > b for a, b in pairwise(offsets))
        report.resets += subscriber.resets
        report.reconnects += subscriber.connections - 1
    return report


def run(
    faults: Faults = break_things,
    *,
    bus: str = "channels",
    log: str = "database",
    sockets: int = 200,
    topics: int = 5,
    events: int = 1_000,
) -> Report:
    """The whole job, with servers of its own."""
    with tempfile.TemporaryDirectory(prefix="realtime-main-job-") as data_dir:
        env = prepare_site(new_database_url(), data_dir)
        broker = BROKERS[bus]()
        # Another Redis than the broker: that one is killed, and comes back empty.
        redis = Valkey(Path(data_dir, "log"), appendonly="yes") if log == "redis" else None
        env |= {"EVENT_LOG": log, "REDIS_LOG_URL": redis.url if redis else ""}
        started = time.monotonic()
        try:
            killed = broker.expected if faults is break_things else []
            site = env | broker.env
            with serving(site, "--workers", "2", expected=killed) as server:
                print(f"  2 workers on {server.url}, bus {bus}, log {log}", flush=True)
                size = {"sockets": sockets, "topics": topics, "events": events}
                job = drive(server, broker, TOKENS["alice"], faults, **size)
                subscribers, acknowledged = asyncio.run(job)
            listed = manage("shell", "--no-imports", "-c", f"topics = {topics}{_LOG}", env=env)
        finally:
            broker.stop()
            if redis is not None:
                redis.stop()
        report = compare(subscribers, acknowledged, json.loads(listed.splitlines()[-1]))
        report.seconds = time.monotonic() - started
        return report


_LOG = """
import asyncio, json
from realtime.eventlog import get_event_log
from realtime.events.position import OLDEST
async def ids(topic):
    found, position = [], OLDEST
    while page := (await get_event_log().read(topic, position, 1_000)).events:
        found, position = found + [event.id for event in page], page[-1].position
    return found
async def listed():
    return {f"room.{n}": await ids(f"room.{n}") for n in range(topics)}
print(json.dumps(asyncio.run(listed())))
"""


def _offset(event_id: str) -> int:
    return int(event_id.rpartition("-")[2])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bus", choices=BROKERS, default=os.environ.get("BUS") or "channels")
    parser.add_argument("--log", choices=["database", "redis"], default="database")
    parser.add_argument("--sockets", type=int, default=200, help="subscribers of each kind")
    parser.add_argument("--topics", type=int, default=5)
    parser.add_argument("--events", type=int, default=1_000)
    report = run(**vars(parser.parse_args()))
    print(report)
    print("Nothing lost, nothing doubled, all in order." if report.is_clean else "NOT CLEAN")
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
