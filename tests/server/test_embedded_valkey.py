"""The embedded Valkey as a process of its own; the supervisor's use of it is tested there."""

import asyncio
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from realtime.server import embedded_valkey as valkey

from .support import eventually

COMMAND = [sys.executable, "-m", "realtime.server.embedded_valkey"]


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the socket is to be."""
    with tempfile.TemporaryDirectory() as short:  # a socket's path has 107 bytes at most
        yield Path(short) / "socket"


def ask(place: Path, line: bytes) -> bytes:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(place))
            client.sendall(line)
            return client.recv(1_000)
    except OSError:
        return b""


def test_it_becomes_the_server_and_persists_nothing(place: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, str(place), str(os.getpid())],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "SECRET_KEY": "nothing to Valkey"},
    )
    try:
        eventually(lambda: ask(place, b"PING\r\n") == b"+PONG\r\n", 30)
        assert b"valkey" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert Path(f"/proc/{process.pid}/environ").read_bytes() == b""
        assert ask(place, b"CONFIG GET save\r\n") == b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"
        assert ask(place, b"CONFIG GET appendonly\r\n").endswith(b"no\r\n")
        assert ask(place, b"CONFIG GET port\r\n").endswith(b"$1\r\n0\r\n")
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    finally:
        process.kill()
        process.wait()


def test_it_does_not_start_where_the_supervisor_has_died_meanwhile(place: Path) -> None:
    subprocess.run([*COMMAND, str(place), str(os.getppid())], timeout=20, check=True)
    assert not place.exists()


def test_nobody_else_can_plant_a_dump_or_take_its_place(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = place.parent
    (shared / "dump.rdb").write_bytes(b"REDIS0011 planted")  # ends a Valkey that loads it
    monkeypatch.setattr(tempfile, "tempdir", str(shared))

    async def main() -> None:
        running = valkey.EmbeddedValkey(dict(os.environ))
        try:
            path = Path(urlsplit(await running.start()).path)
            assert path.parent.parent == shared
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert await asyncio.to_thread(ask, path, b"PING\r\n") == b"+PONG\r\n"
        finally:
            await running.end()
        assert [each.name for each in shared.iterdir()] == ["dump.rdb"]

    asyncio.run(main())


def test_without_a_folder_for_its_socket_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(**options: object) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", fail)
    with pytest.raises(valkey.ValkeyError, match="No usable temporary directory found"):
        asyncio.run(valkey.EmbeddedValkey({}).start())


async def test_folder_is_removed_also_where_the_start_is_cancelled_while_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, begun, go = tempfile.mkdtemp, threading.Event(), threading.Event()

    def make(**options: str) -> str:
        begun.set()
        assert go.wait(20)
        return real(dir=tmp_path, **options)

    monkeypatch.setattr(tempfile, "mkdtemp", make)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    running = valkey.EmbeddedValkey({})
    starting = asyncio.create_task(running.start())
    while not begun.is_set():
        await asyncio.sleep(0.001)
    starting.cancel()
    go.set()
    await asyncio.wait([starting])
    await loop.run_in_executor(None, int)  # once the thread is free again
    assert len(os.listdir(tmp_path)) == 1
    await running.end()
    assert os.listdir(tmp_path) == []


def test_the_binary() -> None:
    assert Path(valkey.binary()).is_file()
