"""The contestants as processes: how each is prepared, started, killed and started again."""

import http.client
import importlib.util
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from tests.support.servers import ROOT, Valkey, free_port

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 8.0
ITEMS: Final = 50_000
BIG_FILE: Final = "big.bin"
BIG_FILE_BYTES: Final = 64 * 2**20
FILE: Final = "numbers.txt"
FILE_BODY: Final = b"".join(b"%07d\n" % number for number in range(20_000))
SECRET: Final = b"This lies beside the folder of the files."
MODEL_KEY: Final = "sk-parity"
NOT_INHERITED: Final = frozenset(
    {
        *("DATABASE_URL", "DATABASE_PATH", "REDIS_URL", "CHANNEL_LAYER", "EVENT_LOG"),
        *("DEBUG", "DEMO", "DATA_DIR", "FILES_DIR", "ALLOWED_HOSTS", "ALLOWED_ORIGINS"),
        *("LLM_PROVIDER", "LLM_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
        *("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "DJANGO_SETTINGS_MODULE", "LOG_LEVEL"),
    }
)


@dataclass(frozen=True)
class User:
    """Somebody who can sign in."""

    id: int
    username: str
    token: str
    session: str


class Contestant:
    """One way to build the chapter."""

    name: ClassVar[str]
    admin: ClassVar[str]  # the module with the commands create, deactivate, items
    needs: ClassVar[tuple[str, ...]] = ()  # packages
    items_table: ClassVar[str] = ""

    @classmethod
    def missing(cls) -> str:
        """The first package it needs that is not installed."""
        return next((name for name in cls.needs if importlib.util.find_spec(name) is None), "")

    def command(self, port: int, ping: int | None) -> list[str]:
        """How it is started; `ping` is the interval of protocol pings in seconds."""
        raise NotImplementedError

    def environment(self, folder: Path) -> dict[str, str]:
        """What it is configured by, besides REDIS_URL, FILES_DIR and the language model."""
        raise NotImplementedError

    def lose_history(self, server: "Server", topic: str) -> bool:
        """Drop all but the newest events of a topic. False where it can't be asked for: then
        the check publishes more than anyone would keep."""
        return False


class Ours(Contestant):
    """`manage.py serve`."""

    name = "ours"
    admin = "tests.whole.parity.admin"
    items_table = "demo_item"

    def command(self, port: int, ping: int | None) -> list[str]:
        serve = [sys.executable, "manage.py", "serve", "--port", str(port)]
        if ping is None:
            return serve
        return [*serve, "--", "--ping-interval", str(ping), "--ping-timeout", str(ping)]

    def environment(self, folder: Path) -> dict[str, str]:
        return {
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "SECRET_KEY": "only for tests",
            "ALLOWED_HOSTS": "127.0.0.1,localhost",
            "DATABASE_URL": f"sqlite:///{folder / 'site.sqlite3'}",
            "DATA_DIR": str(folder),
            "LLM_PROVIDER": "openai",
        }

    def lose_history(self, server: "Server", topic: str) -> bool:
        env = {
            **server.site.environment(),
            "DJANGO_SETTINGS_MODULE": "tests.support.site.settings",
            "TEST_REALTIME": json.dumps({"RETENTION_EVENTS": 1}),
        }
        run([sys.executable, "manage.py", "prune_events"], env)
        return True


class FastAPI(Contestant):
    """The twin, on uvicorn with uvloop and httptools."""

    name = "fastapi"
    admin = "benchmarks.fastapi_app.admin"
    needs = (
        *("fastapi", "uvicorn", "uvloop", "httptools", "sqlalchemy", "aiosqlite"),
        *("orjson", "redis", "openai"),
    )
    items_table = "items"

    def command(self, port: int, ping: int | None) -> list[str]:
        application = "benchmarks.fastapi_app.main:app"
        options = ["--port", str(port), "--loop", "uvloop", "--http", "httptools"]
        if ping is not None:
            options += ["--ws-ping-interval", str(ping), "--ws-ping-timeout", str(ping)]
        return [sys.executable, "-m", "uvicorn", application, *options]

    def environment(self, folder: Path) -> dict[str, str]:
        return {
            "DATABASE_URL": f"sqlite+aiosqlite:///{folder / 'site.sqlite3'}",
            "SECRET_KEY": "only for tests",
        }


class StockChannels(Contestant):
    """Channels as its tutorial has it, on stock Daphne."""

    name = "stock"
    admin = "benchmarks.stock_channels.admin"
    needs = ("daphne", "channels_redis", "openai")
    items_table = "stock_channels_item"

    def command(self, port: int, ping: int | None) -> list[str]:
        options = ["-p", str(port)]
        if ping is not None:
            options += ["--ping-interval", str(ping), "--ping-timeout", str(ping)]
        return [
            *(sys.executable, "-m", "daphne", *options),
            "benchmarks.stock_channels.asgi:application",
        ]

    def environment(self, folder: Path) -> dict[str, str]:
        return {
            "DATABASE_PATH": str(folder / "site.sqlite3"),
            "DJANGO_SETTINGS_MODULE": "benchmarks.stock_channels.settings",
        }


EVERYONE: Final = {each.name: each for each in (Ours, FastAPI, StockChannels)}


def run(command: list[str], env: Mapping[str, str]) -> str:
    """Run a command to its end; its stdout."""
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command} exited with {done.returncode}:\n{done.stderr}"
    return done.stdout


@dataclass
class Site:
    """A contestant with its database, its files and its Valkey; any number of its servers."""

    contestant: Contestant
    folder: Path
    model_url: str = ""
    users: dict[str, User] = field(default_factory=dict)
    servers: list["Server"] = field(default_factory=list)
    valkey: Valkey | None = None
    stopped: bool = False
    starting: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def prepare(cls, contestant: Contestant, model_url: str) -> "Site":
        """The one that the others are copied from."""
        site = cls(contestant, Path(tempfile.mkdtemp(prefix=f"parity-{contestant.name}-")))
        site.model_url = model_url
        files = site.folder / "files"
        files.mkdir()
        (files / FILE).write_bytes(FILE_BODY)
        with (files / BIG_FILE).open("wb") as file:
            file.truncate(BIG_FILE_BYTES)
        (site.folder / "secret.txt").write_bytes(SECRET)
        for name, *options in (("alice",), ("bob",), ("carol",), ("staff", "--staff")):
            site.create(name, *options)
        if contestant.items_table:
            site.admin("items", str(ITEMS))
        return site

    def copy(self, model_url: str = "") -> "Site":
        """The same with a database of its own; the files are shared."""
        folder = Path(tempfile.mkdtemp(prefix=f"parity-{self.contestant.name}-"))
        for path in self.folder.glob("site.sqlite3*"):
            shutil.copy(path, folder)
        (folder / "files").symlink_to((self.folder / "files").resolve())
        return Site(self.contestant, folder, model_url or self.model_url, dict(self.users))

    def environment(self) -> dict[str, str]:
        """What its processes get."""
        kept = {name: text for name, text in os.environ.items() if name not in NOT_INHERITED}
        return {
            **kept,
            "PYTHONUNBUFFERED": "1",
            "FILES_DIR": str((self.folder / "files").resolve()),
            "REDIS_URL": self.valkey.url if self.valkey else "redis://127.0.0.1:1/0",
            "OPENAI_BASE_URL": f"{self.model_url}/v1",
            "OPENAI_API_KEY": MODEL_KEY,
            **self.contestant.environment(self.folder),
        }

    def admin(self, *arguments: str) -> str:
        """Run one of the contestant's own commands."""
        return run([sys.executable, "-m", self.contestant.admin, *arguments], self.environment())

    def create(self, username: str, *options: str) -> None:
        """Make a user."""
        line = self.admin("create", username, *options).splitlines()[-1]
        self.users[username] = User(**json.loads(line))

    def break_items(self) -> None:
        """Take the table of items away, as a failing database does it in the middle of a stream."""
        with closing(sqlite3.connect(self.folder / "site.sqlite3", timeout=10)) as database:
            table = self.contestant.items_table
            database.execute(f"ALTER TABLE {table} RENAME TO {table}_gone")
            database.commit()

    def start_valkey(self) -> None:
        """Start it, unless it runs."""
        if self.valkey is None:
            self.valkey = Valkey()

    def start(self, *, ping: int | None = None) -> "Server":
        """One more server on this database and this Valkey."""
        self.start_valkey()
        server = Server(self, ping)
        self.servers.append(server)
        server.start()
        return server

    def stop(self) -> None:
        """End everything, and leave nothing behind, not even what a thread is about to start."""
        with self.starting:
            self.stopped = True
        for server in self.servers:
            server.kill()
        if self.valkey is not None:
            self.valkey.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Server:
    """A process that serves, or several with a supervisor."""

    def __init__(self, site: Site, ping: int | None) -> None:
        self.site = site
        self.ping = ping
        self.port = free_port()
        self._log = site.folder / f"{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def users(self) -> dict[str, User]:
        return self.site.users

    def log(self) -> str:
        """Everything it has printed."""
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.site.starting, self._log.open("ab") as log:
            if self.site.stopped:
                raise RuntimeError("The site has been stopped.")
            self._process = subprocess.Popen(
                self.site.contestant.command(self.port, self.ping),
                cwd=ROOT,
                env=self.site.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers():
                return
            time.sleep(0.03)
        self.kill()
        raise RuntimeError(f"{self.site.contestant.name} did not start:\n{self.log()[-3_000:]}")

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with closing(connection), suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            return True
        return False

    def terminate(self, seconds: float = STOP_SECONDS) -> bool:
        """SIGTERM; whether that ended it in time. It is gone afterwards in any case."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True

    def kill(self) -> None:
        """SIGKILL to all of it."""
        if self._process is None:
            return
        if self._process.poll() is None:
            pids = [*descendants(self._process.pid), self._process.pid]
            for pid in reversed(pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()

    @property
    def worker(self) -> int:
        """The process that serves: the last descendant, where there is a supervisor."""
        assert self._process is not None
        return [self._process.pid, *descendants(self._process.pid)][-1]

    def forget_peak(self) -> int:
        """Begin the peak anew; the worker's resident bytes now."""
        Path(f"/proc/{self.worker}/clear_refs").write_text("5")
        return self._memory("VmRSS")

    def peak(self) -> int:
        """The most resident bytes that the worker had since `forget_peak`."""
        return self._memory("VmHWM")

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self.worker}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) * 1_024


def descendants(pid: int) -> list[int]:
    """Children and their children, parents first."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found
