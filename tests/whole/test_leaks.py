"""A thousand connections that come and go in every way leave nothing behind."""

import asyncio
import base64
import contextlib
import os
import random
import struct
from collections.abc import Iterator
from socket import SO_LINGER, SOL_SOCKET
from types import SimpleNamespace
from typing import Any

import django
import httpx
import pytest

from ..support import clients
from ..support.clients import bearer
from ..support.servers import wait_until
from ..support.sites import site_for_module

CYCLES = 1_000
AT_ONCE = 20
CONSTANTS = {"KEEPALIVE_SECONDS": 0.2, "HEARTBEAT_SECONDS": 0.2, "FIRST_MESSAGE_SECONDS": 0.5}
COUNTED = ["tasks", "hubs", "groups", "channels", "watched", "subscriptions"]
WITHOUT_TOPIC = ["/ws", "/ws/user", "/ws/auth/message", "/ws/echo"]
BOUNDED = ["files", "connections"]  # may be less: what the first cycles left was closed since
# Pools fill up when they are used, to their limit and no further.
POOLS = {
    "MainThread": 1,
    "parent": 1,  # waits for the supervisor's end
    "realtime-database_": 8,  # twice DATABASE_THREADS
    "watch-realtime-database": 1,  # while calls wait
    "request-": 16,  # request_threads
    "request-_": 16,  # request_threads
    "uvloop_": (os.cpu_count() or 1) + 4,
    "asyncio_": (os.cpu_count() or 1) + 4,
    "pool--scheduler": 1,  # these two of psycopg's pool
    "pool--worker-": 3,
    "ThreadPoolExecutor-_": 1,  # of the request that asks
}


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    with site_for_module(_site_template, CONSTANTS) as site:
        yield site


class Wire:
    """A bare connection, which can end in ways that no well-behaved client knows."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, here: Any) -> "Wire":
        return cls(*await asyncio.open_connection("127.0.0.1", here.server.port))

    def request(self, path: str, *headers: str) -> bytes:
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]
        return "\r\n".join(lines).encode()

    def handshake(self, path: str) -> bytes:
        key = base64.b64encode(os.urandom(16)).decode()
        return self.request(
            path,
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        )

    def frame(self, text: str, opcode: int = 1) -> bytes:
        payload = text.encode()
        return bytes((0x80 | opcode, 0x80 | len(payload))) + b"\0\0\0\0" + payload

    async def until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(20):
            return await self.reader.readuntil(mark)

    def reset(self) -> None:
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def one_cycle(here: Any, chance: random.Random, used: list[str]) -> None:
    token = here.tokens[chance.choice(["alice", "bob", "admin"])]
    topic = f"room.leak.{chance.randrange(10)}"
    paths = [
        f"/topics/{topic}/events?token={token}",
        f"/topics/{topic}/events?after=0&token={token}",
        f"/events?topic={topic}&topic=public.leak&token={token}",
        f"/ws/topics/{topic}?token={token}",
        f"/ws/topics/{topic}?after=0&token={token}",
        f"/ws?token={token}",
        f"/ws/user?token={token}",
        "/ws/auth/message",
        "/ws/echo",
        "/ws/topics/room.refused",
        f"/topics/secret/events?token={here.tokens['bob']}",
    ]
    path = chance.choice(paths)
    is_socket = path.startswith("/ws")
    wire = await Wire.open(here)
    request = wire.handshake(path) if is_socket else wire.request(path)
    depth = chance.choice(["half", "sent", "answered", "used", "used"])
    try:
        if depth == "half":
            wire.writer.write(request[: chance.randrange(len(request))])
            await asyncio.sleep(chance.choice([0, 0.01]))
        else:
            wire.writer.write(request)
            if depth != "sent":
                answer = await wire.until(b"\r\n\r\n")
                opened = answer.startswith((b"HTTP/1.1 101", b"HTTP/1.1 200"))
                if depth == "used" and opened:
                    await use(wire, chance, path, topic)
                    used.append(path.partition("?")[0].replace(topic, ""))
        ending = chance.choice(["reset", "close", "goodbye"])
        if ending == "reset":
            wire.reset()
        elif ending == "goodbye" and is_socket and depth == "used":
            wire.writer.write(wire.frame("\x03\xe8", 8))
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        await wire.close()


async def use(wire: Wire, chance: random.Random, path: str, topic: str) -> None:
    if not path.startswith("/ws"):
        await wire.until(b"\n\n")
        return
    if path.startswith("/ws?"):
        wire.writer.write(wire.frame('{"type":"subscribe","topic":"%s"}' % topic))  # noqa: UP031
    if "topics" in path:
        wire.writer.write(wire.frame('{"type":"publish","data":1}'))
    if "echo" in path:
        wire.writer.write(wire.frame('{"type":"pong"}'))
    await asyncio.sleep(chance.uniform(0, 0.03))


def inside(here: Any) -> dict[str, Any]:
    """What the server holds now; the request's own thread and connection are part of it."""
    answer = httpx.get(f"{here.url}/tests/inside", timeout=20)
    assert answer.status_code == 200
    return dict(answer.json())


async def cycles(here: Any, count: int, seed: int) -> list[str]:
    """Return the paths of those connections that were used to their end."""
    gate, used = asyncio.Semaphore(AT_ONCE), list[str]()

    async def run(number: int) -> None:
        async with gate:
            await one_cycle(here, random.Random(seed * 10_000 + number), used)

    await asyncio.gather(*(run(number) for number in range(count)))
    return used


def settled(here: Any) -> dict[str, Any] | None:
    found = inside(here)
    busy = any(found[name] for name in ("hubs", "watched", "groups", "channels"))
    closing = any(
        name.startswith(("Hub.", "ConnectionRegistry.check", "Keeper.")) for name in found["tasks"]
    )
    return None if busy or closing else found


async def test_nothing_is_left(here):
    asyncio.get_running_loop().set_debug(False)
    # All that is made once and kept is made first: threads of pools, connections, caches.
    assert httpx.get(f"{here.url}/tests/filled", timeout=20).status_code == 200
    for number in range(10):  # a stream of a topic without events would wait for its time-out
        clients.publish(here, here.tokens["alice"], f"room.leak.{number}", 1)
    await cycles(here, 150, seed=1)
    before = await asyncio.to_thread(wait_until, lambda: settled(here), 20, "an empty server")
    used = await cycles(here, CYCLES, seed=2)
    # Of eleven paths two are refused, and two of five connections go so far.
    assert len(used) > CYCLES / 5
    assert set(used) == {"/topics//events", "/events", "/ws/topics/", *WITHOUT_TOPIC}

    def same() -> bool:
        now = settled(here)
        return (
            now is not None
            and all(now[name] == before[name] for name in COUNTED)
            and all(now[name] <= before[name] for name in BOUNDED)
            and all(count <= POOLS[name] for name, count in now["threads"].items())
        )

    try:
        await asyncio.to_thread(wait_until, same, 20)
    except AssertionError:
        now = await asyncio.to_thread(inside, here)
        names = [*COUNTED, *BOUNDED, "threads"]
        pytest.fail(f"{[now[name] for name in names]} of {names} is left, {before} was before")
    answer = httpx.get(f"{here.url}/events?topic=x", headers=bearer(here.tokens["bob"]))
    assert answer.status_code == 403
    assert not [line for line in here.log if "Traceback" in line or "never retrieved" in line]


OF_DJANGO = pytest.mark.skipif(
    django.VERSION >= (6, 1), reason="its handler makes a class, and a circle, for each request"
)


async def sign_in_late(wire: Wire, token: str) -> None:
    wire.writer.write(wire.frame('{"type":"auth","token":"%s"}' % token))  # noqa: UP031
    await wire.until(b'"}')


async def publish(wire: Wire, token: str) -> None:
    wire.writer.write(wire.frame('{"type":"publish","data":1}'))
    await wire.until(b'"published"')


async def send_nothing(wire: Wire, token: str) -> None:
    pass


@pytest.mark.parametrize(
    ("path", "use"),
    [
        ("/ws/topics/room.gc?token={token}", publish),
        ("/ws/topics/room.gc?token=wrong", send_nothing),
        ("/ws/topics/room.gc", send_nothing),  # which is not for everybody
        ("/ws/auth/message", sign_in_late),
        ("/ws/absent", send_nothing),
        pytest.param("/healthz", send_nothing, marks=OF_DJANGO),
    ],
)
@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_connection_that_ends_is_no_work_for_the_garbage_collector(here, path, use, ending):
    """A full collection stops all of a worker: where many come and go, for 100 ms a second."""
    token, count = here.tokens["alice"], 20
    wire = await Wire.open(here)  # for which a hub is kept, as where there are others
    wire.writer.write(wire.handshake(f"/ws/topics/public.gc?token={token}"))
    await wire.until(b"\r\n\r\n")
    async with httpx.AsyncClient(base_url=here.url) as client:
        for _ in range(2):  # the first time much is made that is kept
            await client.get("/tests/collected")
            for _ in range(count):
                short = await Wire.open(here)
                is_socket = path.startswith("/ws")
                request = short.handshake(path) if is_socket else short.request(path)
                short.writer.write(request.replace(b"{token}", token.encode()))
                answer = await short.until(b"\r\n\r\n")
                if answer.startswith(b"HTTP/1.1 101"):
                    await use(short, token)
                if ending == "reset":
                    short.reset()
                await short.close()
            await asyncio.sleep(0.2)
        found = (await client.get("/tests/collected?last=1")).json()
    await wire.close()
    ours = {name: n for name, n in found.items() if name.startswith("realtime.") and n >= count / 2}
    assert ours == {}
