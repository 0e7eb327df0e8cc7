"""The embedded Valkey as a process of its own; the supervisor's use of it is tested there."""

import socket
import subprocess
import sys
from pathlib import Path

from realtime.server import embedded_valkey as valkey

from .support import eventually


def test_it_becomes_the_server_and_persists_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "realtime.server.embedded_valkey", str(port)],
        stdout=subprocess.DEVNULL,
    )

    def ask(line: bytes) -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
                client.sendall(line)
                return client.recv(1_000)
        except ConnectionError:
            return b""

    try:
        eventually(lambda: ask(b"PING\r\n") == b"+PONG\r\n", 15)
        assert b"valkey" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert ask(b"CONFIG GET save\r\n") == b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"
        assert ask(b"CONFIG GET appendonly\r\n").endswith(b"no\r\n")
    finally:
        process.kill()
        process.wait()


def test_the_binary() -> None:
    assert Path(valkey.binary()).is_file()
