"""Endpoints, their backlog, and what happens when no file descriptor is left."""

import errno
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from realtime.server import listen
from realtime.server.listen import Listener
from realtime.server.timeouts import MAX_LINGERING

from ..support.attempts import three_tries
from ..support.servers import free_port
from .support import EXIT_SECONDS, ROOT, Client, Worker, eventually


def test_daphnes_own_endpoint_with_a_backlog_of_thousands() -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "realtime.server", "-p", str(port), "tests.server.apps:application"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def answers() -> bytes:
            try:
                with Client(("127.0.0.1", port)) as client:
                    client.request("/hello", "Connection: close")
                    return client.response().body
            except ConnectionError:
                return b""

        eventually(lambda: answers() == b"hello", 30)
        process.terminate()
        assert process.wait(EXIT_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def test_a_port_in_use_is_an_error_not_a_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "realtime.server", "-p", port, "tests.server.apps:application"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
        )
    assert done.returncode == 1
    assert "Listen failure" in done.stderr
    assert "Traceback" not in done.stderr


class FullListener:
    """A listening socket of a process that has no file descriptor left."""

    def fileno(self) -> int:
        return 3

    def accept(self) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class Loop:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.readers: set[int] = set()
        self.later: list[Any] = []

    def add_reader(self, fd: int, *_: Any) -> None:
        self.readers.add(fd)

    def remove_reader(self, fd: int) -> None:
        self.readers.discard(fd)

    def call_later(self, seconds: float, *call: Any) -> None:
        self.later.append(call)


@pytest.mark.parametrize("closed", [False, True])
def test_without_file_descriptors_it_pauses_instead_of_spinning(
    closed: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listen, "_within_file_limit", lambda wanted: wanted)
    loop, sock = Loop(), FullListener()
    server: Any = SimpleNamespace(loop=loop, limits=SimpleNamespace(max_connections=1))
    listener: Any = Listener(server)
    listener._hosts[sock] = None
    loop.add_reader(3)
    listener._accept(sock)
    assert not loop.readers
    assert "Can't accept connections: Too many open files" in caplog.text
    if closed:
        listener.close()
    for again, *words in loop.later:
        again(*words)
    assert loop.later
    assert loop.readers == (set() if closed else {3})


def test_connections_leave_file_descriptors_to_the_application() -> None:
    _, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        assert listen._within_file_limit(300) == 300
        # Each may be the download of a file, which is open too.
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 600 + listen.SPARE_FILES
        assert listen._within_file_limit(hard - listen.SPARE_FILES) == hard - listen.SPARE_FILES
        assert listen._within_file_limit(hard) == hard - listen.SPARE_FILES
        assert listen._within_file_limit(1) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_file_of_an_inherited_unix_socket_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as inherited:
        inherited.bind(str(path))
        path.chmod(0o600)
        inherited.listen()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "realtime.server", "--fd", str(inherited.fileno())),
                "tests.server.apps:application",
            ],
            cwd=ROOT,
            pass_fds=[inherited.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with Client(str(path), timeout=20) as client:
                client.request("/hello", "Connection: close")
                assert client.response().body == b"hello"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600  # it says who may connect
            process.terminate()
            assert process.wait(EXIT_SECONDS) == 0
            assert path.exists()
        finally:
            process.kill()
            process.wait()


def test_who_is_refused_does_not_use_up_what_is_kept_for_the_application(
    start: Callable[..., Worker],
) -> None:
    worker = start("--max-connections", "1")
    descriptors = Path(f"/proc/{worker.process.pid}/fd")
    before = len(list(descriptors.iterdir()))

    def come_too_many() -> None:
        with ExitStack() as stack:
            clients = [stack.enter_context(worker.client()) for _ in range(MAX_LINGERING + 41)]
            for client in clients[1:]:
                with suppress(ConnectionResetError):
                    assert b" 503 " in client.until(b"\r\n")
            # The last may be between its answer and its end; CLOSING_GRACE is longer than a second.
            eventually(
                lambda: len(list(descriptors.iterdir())) <= before + 1 + MAX_LINGERING, seconds=1
            )

    three_tries(come_too_many)
