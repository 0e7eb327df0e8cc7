"""systemd's side of `serve`: a socket that is passed in, and what is notified."""

import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from realtime.server import systemd

from .support import Client
from .test_supervisor import ROOT

# Between fork and exec systemd puts its sockets at 3 and up, and says for whom they are.
LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", WATCHDOG_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-c", sys.argv[2]])
"""
SERVE = """
from realtime.server.supervisor import Supervisor
Supervisor("tests.server.apps:application", port=1).run()
"""


@pytest.fixture(scope="session", autouse=True)
def _no_connection_left() -> None:
    """These tests have no database."""


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20)
        yield sock


def test_a_service_of_systemd_from_its_start_to_its_end(
    tmp_path: Path, notified: socket.socket
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(listener.fileno()), SERVE],
            cwd=ROOT,
            env={**env, "TEST_LOG": str(tmp_path / "log")},
            pass_fds=[listener.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert notified.recv(100) == b"WATCHDOG=1"
            while (state := notified.recv(100)) == b"WATCHDOG=1":
                pass
            assert state == b"READY=1"
            assert process.stdout
            port = listener.getsockname()[1]
            assert process.stdout.readline().startswith(f"Serving on http://127.0.0.1:{port} ")
            with Client(listener.getsockname()) as client:
                client.request("/hello", "Connection: close")
                assert client.response().body == b"hello"
            assert notified.recv(100) == b"WATCHDOG=1"
            process.send_signal(signal.SIGTERM)
            while (state := notified.recv(100)) == b"WATCHDOG=1":
                pass
            assert state == b"STOPPING=1"
            assert process.wait(20) == 0
            # The socket is not the server's: connections wait for the next one.
            Client(listener.getsockname()).close()
        finally:
            process.kill()
            process.wait()
            assert process.stdout
            process.stdout.close()


def test_nothing_is_notified_where_nobody_asks(notified: socket.socket) -> None:
    notified.setblocking(False)
    systemd.notify({}, "READY=1")
    systemd.notify({"NOTIFY_SOCKET": "/nowhere/at/all"}, "READY=1")
    assert select.select([notified], [], [], 0)[0] == []


def test_what_can_not_be_notified_for_lack_of_a_descriptor_ends_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(0)
        systemd.notify({"NOTIFY_SOCKET": str(tmp_path / "notify")}, "WATCHDOG=1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_name_with_an_at_sign_is_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = f"realtime-test-{os.getpid()}"
        sock.bind(f"\0{name}")
        sock.settimeout(20)
        systemd.notify({"NOTIFY_SOCKET": f"@{name}"}, "READY=1")
        assert sock.recv(100) == b"READY=1"


def test_watchdog_of_another_process_is_none_of_ours() -> None:
    env = {"WATCHDOG_USEC": "3000000"}
    assert systemd.watchdog_seconds(env) == 1.5
    assert systemd.watchdog_seconds({**env, "WATCHDOG_PID": str(os.getpid())}) == 1.5
    assert systemd.watchdog_seconds({**env, "WATCHDOG_PID": "1"}) is None
    assert systemd.watchdog_seconds({}) is None
