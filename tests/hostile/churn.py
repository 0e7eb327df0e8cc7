"""Clients that misbehave in eight ways, for minutes: `python -m tests.hostile.churn --minutes 16`.

A site with two workers and Valkey is measured once all that it makes once and keeps is there, and
again at the end, when the clients have left: memory, descriptors and threads of the workers,
connections to the database, keys and channels of Valkey. The exit code is 1 if one has grown.
"""

import argparse
import asyncio
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Final, TypeAlias

import psycopg
from redis import Redis

from ..support.databases import ON_POSTGRESQL, new_database_url
from ..support.servers import TOKENS, SiteServer, Valkey, manage, prepare_site, serving
from .attacks import frame, handshake, head

AT_ONCE: Final = 40
PACE_SECONDS: Final = 0.2  # of one client, between two connections
SETTLE_SECONDS: Final = 30.0  # for what is left to be noticed and closed
FILLED: Final = 300  # events of each topic before the first measurement
MEMORY_BYTES: Final = 8 * 2**20  # a worker may have grown by this: the allocator keeps some

Client: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
AUTHORIZATION: Final = f"Authorization: Bearer {TOKENS['alice']}"
TOPICS: Final = [f"room.churn.{number}" for number in range(20)]
FILL: Final = f"""
from realtime import publish_many
for topic in {TOPICS}:
    publish_many([{{"topic": topic, "data": "." * 500}}] * {FILLED})
"""


def topic() -> str:
    return random.choice(TOPICS)


async def half_a_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = head("GET", f"/topics/{topic()}/events", AUTHORIZATION)
    writer.write(request[: random.randrange(len(request))])
    await asyncio.sleep(random.uniform(0, 0.2))


async def slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in head("GET", "/healthz")[: random.randrange(20)]:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)


async def half_a_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    path = f"/topics/{topic()}/events"
    writer.write(head("POST", path, AUTHORIZATION, "Content-Length: 100000") + bytes(5_000))
    await asyncio.sleep(random.uniform(0, 0.3))


async def stream_that_is_left(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(head("GET", f"/topics/{topic()}/events?after=0", AUTHORIZATION))
    await reader.read(random.randrange(1, 2_000))


async def stream_that_is_not_read(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    reader._transport.pause_reading()
    writer.write(head("GET", random.choice(["/firehose?mb=20", "/stream/items"]), AUTHORIZATION))
    await asyncio.sleep(random.uniform(0, 2))


async def socket_that_is_left(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(handshake(f"/ws/topics/{topic()}?after=0", AUTHORIZATION))
    await reader.readuntil(b"\r\n\r\n")
    for _ in range(random.randrange(5)):
        writer.write(frame(0x81, b'{"type":"publish","data":1}'))
    await asyncio.sleep(random.uniform(0, 0.3))


async def bad_frames(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(handshake("/ws", AUTHORIZATION))
    await reader.readuntil(b"\r\n\r\n")
    writer.write(random.randbytes(random.randrange(1, 200)))
    await reader.read(2_000)


async def many_topics(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(handshake("/ws", AUTHORIZATION))
    await reader.readuntil(b"\r\n\r\n")
    for number in range(random.randrange(40)):
        kind = random.choice([b"subscribe", b"unsubscribe"])
        text = b'{"type":"%b","topic":"room.churn.%d"}' % (kind, number)
        writer.write(frame(0x81, text))
    writer.write(frame(0x81, b'{"type":"ping"}')[: random.randrange(1, 8)])
    await reader.read(2_000)


CLIENTS: Final[tuple[Client, ...]] = (
    half_a_head,
    slow_head,
    half_a_body,
    stream_that_is_left,
    stream_that_is_not_read,
    socket_that_is_left,
    bad_frames,
    many_topics,
)


@dataclass
class Held:
    """What a site holds."""

    memory: int  # bytes of both workers
    descriptors: int
    threads: int
    connections: int  # to PostgreSQL; 0 with SQLite
    keys: int
    channels: int

    def grown(self, before: "Held") -> list[str]:
        """Return what is more than before. Pools may not have been full then."""
        allowed = {"memory": 2 * MEMORY_BYTES, "threads": 8, "connections": 4, "descriptors": 8}
        return [
            f"{name}: {getattr(before, name):,} before, {value:,} now"
            for name, value in vars(self).items()
            if value > getattr(before, name) + allowed.get(name, 0)
        ]


def measure(server: SiteServer, valkey: Valkey, database_url: str) -> Held:
    """Return what is held now."""
    held = Counter[str]()
    for pid in server.worker_pids():
        folder = Path(f"/proc/{pid}")
        held["memory"] += int((folder / "statm").read_text().split()[1]) * 4_096
        held["descriptors"] += len(list((folder / "fd").iterdir()))
        held["threads"] += len(list((folder / "task").iterdir()))
    if ON_POSTGRESQL:
        with psycopg.connect(database_url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            ).fetchone()
            held["connections"] = row[0] - 1 if row else 0
    with Redis(port=valkey.port) as client:
        held["keys"], held["channels"] = client.dbsize(), len(client.pubsub_channels())
    names = ("memory", "descriptors", "threads", "connections", "keys", "channels")
    return Held(**{name: held[name] for name in names})


async def churn(port: int, seconds: float) -> Counter[str]:
    """Connect and misbehave for so long; return how often each client did."""
    done = Counter[str]()
    end = time.monotonic() + seconds

    async def run() -> None:
        while time.monotonic() < end:
            client = random.choice(CLIENTS)
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    async with asyncio.timeout(3):
                        await client(reader, writer)
                finally:
                    if random.random() < 0.5:  # a reset, and not the end of a stream
                        linger = struct.pack("ii", 1, 0)
                        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
                    writer.transport.abort()
            done[client.__name__] += 1
            await asyncio.sleep(PACE_SECONDS)

    await asyncio.gather(*(run() for _ in range(AT_ONCE)))
    return done


def run(seconds: float, warm_up: float) -> tuple[Counter[str], Held, Held]:
    """Start a site, churn, and return what was done and held: before, and after."""
    database_url, valkey = new_database_url(), Valkey()
    try:
        with tempfile.TemporaryDirectory(prefix="realtime-churn-") as data_dir:
            env = {**prepare_site(database_url, data_dir), "REDIS_URL": valkey.url}
            # What is kept of each topic, and of the database by each of its connections, is full.
            manage("shell", "--no-imports", "-c", FILL, env=env)
            with serving(env, "--workers", "2") as server:
                asyncio.run(churn(server.port, warm_up))
                before = _settled(server, valkey, database_url)
                done = asyncio.run(churn(server.port, seconds))
                return done, before, _settled(server, valkey, database_url, before)
    finally:
        valkey.stop()


def _settled(
    server: SiteServer, valkey: Valkey, database_url: str, before: Held | None = None
) -> Held:
    """Return what is held once that is no more than before, or does not fall any more."""
    deadline = time.monotonic() + SETTLE_SECONDS
    held = measure(server, valkey, database_url)
    while time.monotonic() < deadline and (held.channels or (before and held.grown(before))):
        time.sleep(0.5)
        held = measure(server, valkey, database_url)
    return held


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=16)
    options = parser.parse_args()
    done, before, after = run(options.minutes * 60, warm_up=min(60.0, options.minutes * 10))
    for name, count in sorted(done.items()):
        print(f"{name:<26}{count:>10,}")
    print(f"{'':<26}{'before':>14}{'after':>14}")
    for name, value in vars(before).items():
        print(f"{name:<26}{value:>14,}{getattr(after, name):>14,}")
    grown = after.grown(before)
    print(*grown or ["Nothing is left."], sep="\n")
    return int(bool(grown))


if __name__ == "__main__":
    sys.exit(main())
