"""What a flood by one client costs the others: `python -m benchmarks.flood`.

A site with SQLite and one worker on a core of its own; many clients that publish now and then over
WebSockets, each to a topic of its own and each waiting for its answer. Then another client, with a
user and a token of its own, sends as fast as it can over several sockets and reads its answers,
opens them again at once whenever they are closed, and heeds nothing that it is told. It floods with
messages, with publications, or with handshakes; it runs beside the others' clients, and yields to
them. The others are measured from the first refused handshake on: a burst is let through. Compared
are the medians, over several turns, of the 99th percentile of the others' answers. The exit code is
1 where a flood doubles it.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import websockets

from .engines import manage, prepare, serving
from .machine import cores
from .page.text import number, table_of

FLOOD_SOCKETS: Final = 4
BATCH: Final = 50  # messages that the flood sends before it looks at what has come
REFUSED_SECONDS: Final = 60.0  # until the flood's first handshake is refused, at most
NICE: Final = 19
BAR: Final = 2.0
MESSAGES: Final = {
    "publications": json.dumps({"type": "publish", "data": "x" * 100}),
    "messages": json.dumps({"type": "ping"}),
    "handshakes": None,
}
TOKENS: Final = """
from django.contrib.auth.models import User
from realtime.access.tokens import create_token
for name in {}:
    print(create_token(User.objects.create_user(name))[0])
"""


def main() -> int:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between publications")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--limits", choices=("on", "off"), default="on")
    options = parser.parse_args()
    server_core, client_core, _ = cores()
    found: dict[str, list[list[float]]] = {}
    for _ in range(options.turns):
        os.sched_setaffinity(0, {server_core})  # which the server inherits
        with tempfile.TemporaryDirectory(prefix="flood-") as folder:
            for name, seconds in measure(Path(folder), client_core, options):
                found.setdefault(name, []).append(seconds)
                print(f"{name}: {cut(seconds, 99):.1f} ms", file=sys.stderr)
    alone = statistics.median(cut(seconds, 99) for seconds in found["nobody floods"])
    ratios, rows = [], []
    for name, turns in found.items():
        middle, late = (statistics.median(cut(turn, at) for turn in turns) for at in (50, 99))
        ratios.append(late / alone)
        answers = sum(map(len, turns))
        rows.append([name, str(answers), number(middle), number(late), f"{ratios[-1]:.2f}"])
    print(table_of(["", "answers", "p50, ms", "p99, ms", "p99, ratio"], rows))
    return 0 if max(ratios) < BAR else 1


def cut(seconds: list[float], percent: int) -> float:
    """The milliseconds that this share of the answers did not exceed."""
    return 1e3 * statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]


def measure(
    folder: Path, client_core: int, options: argparse.Namespace
) -> Iterator[tuple[str, list[float]]]:
    """The seconds after which the clients' publications were answered: alone, and in each flood."""
    env = {
        "DATABASE_URL": f"sqlite:///{folder / 'flood.sqlite3'}",
        "DATA_DIR": str(folder),
        "SECRET_KEY": "only for this run",
        "LIMITS": options.limits,
        "LOG_LEVEL": "ERROR",
    }
    token = prepare(env)
    tokens = manage(env, "shell", "--no-imports", "-c", TOKENS.format([*MESSAGES])).split()
    with serving(env, 1) as port:
        os.sched_setaffinity(0, {client_core})
        url = f"ws://127.0.0.1:{port}/ws/topics/public."
        yield "nobody floods", asyncio.run(converse(url, token, options))
        for (kind, message), other in zip(MESSAGES.items(), tokens, strict=True):
            with flood(f"{url}flood?token={other}", message):
                yield f"one floods with {kind}", asyncio.run(converse(url, token, options))


async def converse(url: str, token: str, options: argparse.Namespace) -> list[float]:
    """Have the many clients publish; what each answer took, but for the first ones."""
    seconds: list[float] = []

    async def publish(name: int) -> None:
        address = f"{url}{name}?token={token}"
        async with websockets.connect(address, proxy=None, open_timeout=60) as socket:
            await asyncio.sleep(options.pause * name / options.clients)
            end = time.perf_counter() + options.seconds
            is_first = True  # its topic may be new, and the look-ups
            while time.perf_counter() < end:
                began = time.perf_counter()
                await socket.send(json.dumps({"type": "publish", "data": "x" * 100}))
                while (answer := json.loads(await socket.recv()))["type"] != "published":
                    assert answer["type"] != "error", answer
                if not is_first:
                    seconds.append(time.perf_counter() - began)
                is_first = False
                await asyncio.sleep(options.pause)

    await asyncio.gather(*(publish(name) for name in range(options.clients)))
    return seconds


@contextmanager
def flood(url: str, message: str | None) -> Iterator[None]:
    """Flood from another process for a with block, which begins once a handshake is refused."""
    context = multiprocessing.get_context("fork")
    refused = context.Event()
    process = context.Process(target=run_flood, args=(url, message, refused))
    process.start()
    try:
        if not refused.wait(REFUSED_SECONDS):
            print("No handshake of the flood was refused", file=sys.stderr)
        yield
    finally:
        process.kill()
        process.join()


def run_flood(url: str, message: str | None, refused: Any) -> None:
    """Send as fast as the server reads, for ever; without a message, open and close."""
    os.nice(NICE)
    asyncio.run(_flood(url, message, refused))


async def _flood(url: str, message: str | None, refused: Any) -> None:
    async def one() -> None:
        while True:
            try:
                async with websockets.connect(url, proxy=None) as socket:
                    if message is not None:
                        await asyncio.gather(_send(socket, message), _read(socket))
            except websockets.InvalidStatus:
                refused.set()
            except (websockets.WebSocketException, OSError):
                pass

    await asyncio.gather(*(one() for _ in range(FLOOD_SOCKETS)))


async def _send(socket: Any, message: str) -> None:
    while True:
        for _ in range(BATCH):
            await socket.send(message)
        await asyncio.sleep(0)


async def _read(socket: Any) -> None:
    async for _ in socket:
        pass


if __name__ == "__main__":
    sys.exit(main())
