"""The contestants: how each is prepared, started and spoken to."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from .load import Crowd
from .machine import ServerProcess, free_port
from .wire import (
    StreamParser,
    WebSocketParser,
    get_request,
    stream_request,
    websocket_request,
)

ROOT: Final = Path(__file__).resolve().parent.parent
NO_AUTH: Final = "no auth"
NOT_INHERITED: Final = (
    *("DATABASE_URL", "REDIS_URL", "CHANNEL_LAYER", "BUS", "EVENT_LOG"),
    *("NATS_URL", "REDIS_LOG_URL"),
    *("DEBUG", "DEMO", "FILES_DIR", "LIMITS"),
    # Nor is a model's provider asked by mistake: that costs money.
    *("LLM_PROVIDER", "LLM_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
    *("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
)
SESSION: Final = "session"
TOKEN: Final = "token"
STAFF: Final = "staff"  # one user, by token
STATUS_END: Final = len(b"HTTP/1.1 404")


@dataclass
class Contestant:
    """One way to build the chapter; `credentials` are header lines, one per user."""

    name: str
    label: str
    variants: tuple[str, ...]  # the credentials it knows, the usual one first
    room: str  # a topic that needs them
    topic: str  # a topic anyone may read
    has_workers: bool = True  # whether its server can be told to have several
    is_large: bool = True  # whether it can be asked for bodies larger than memory
    acknowledges: bool = True  # whether a publisher on a WebSocket is told that it was heard
    may_be_silent: bool = True  # whether a client may not answer for a minute
    root: Path = ROOT  # the working tree that it is started from
    env: dict[str, str] = field(default_factory=dict)
    credentials: dict[str, list[bytes]] = field(default_factory=dict)

    def command(self, port: int, *, probed: bool, workers: int) -> Sequence[str]:
        """How it is started; `probed` with the stall probe around its application."""
        raise NotImplementedError

    def prepare(self, folder: Path, redis_url: str, users: int, rows: int) -> None:
        """Make its database, with users and rows of items, and its environment."""
        raise NotImplementedError

    @property
    def publish_headers(self) -> bytes:
        """What a POST to `topic` needs."""
        return b""

    def headers(self, variant: str, count: int) -> Iterator[bytes]:
        """Header lines for `count` connections, each another user's as far as there are users."""
        return islice(cycle(self.credentials.get(variant) or [b""]), count)

    def seed(self, *command: str) -> None:
        """Run a command that fills the database and prints credentials as JSON."""
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.root,
            env=self._environment(),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{self.label} can't be prepared:\n{done.stderr[-3_000:]}")
        for variant, lines in json.loads(done.stdout.splitlines()[-1]).items():
            self.credentials[variant] = [line.encode() for line in lines]

    def _environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if name not in NOT_INHERITED}
        return {**kept, "PYTHONPATH": str(self.root), **self.env}

    @contextmanager
    def serving(
        self,
        cores: int | Collection[int],
        *,
        workers: int = 1,
        probed: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Iterator["Server"]:
        """A fresh server for the length of a with block, with `env` besides its own."""
        port = free_port()
        environment = {**self._environment(), **(env or {})}
        command = self.command(port, probed=probed, workers=workers)
        process = ServerProcess(command, environment, port, cores, self.root)
        try:
            process.wait_until_it_answers()
            if workers > 1:
                process.wait_until_all_serve(workers)
            yield Server(self, process)
        except Exception as error:
            error.add_note(f"{self.label} had said:\n{process.tail()}")
            raise
        finally:
            process.stop()


@dataclass
class Server:
    """A contestant that runs."""

    contestant: Contestant
    process: ServerProcess

    def offers(self, path: str, headers: bytes = b"") -> bool:
        """Whether the application has this path at all."""
        answer = b""
        with socket.create_connection(("127.0.0.1", self.process.port), 30) as sock:
            sock.sendall(get_request(self.host, path, headers))
            while len(answer) < STATUS_END and (data := sock.recv(STATUS_END - len(answer))):
                answer += data
        return not answer.startswith(b"HTTP/1.1 404")

    @property
    def host(self) -> str:
        """The Host header's value."""
        return f"127.0.0.1:{self.process.port}"

    def websockets(
        self, path: str, headers: Iterator[bytes], *, is_narrow: bool = False
    ) -> tuple[Crowd, float]:
        """Open a WebSocket per header line; the crowd, and the seconds it took."""
        crowd = Crowd(self.process.port, WebSocketParser, is_narrow=is_narrow)
        requests = [websocket_request(self.host, path, line) for line in headers]
        return crowd, crowd.open(requests)

    def streams(self, path: str, headers: Iterator[bytes]) -> tuple[Crowd, float]:
        """Open an SSE stream per header line; the crowd, and the seconds it took."""
        crowd = Crowd(self.process.port, StreamParser)
        requests = [stream_request(self.host, path, line) for line in headers]
        return crowd, crowd.open(requests)


class Ours(Contestant):
    """`manage.py serve`."""

    database = ""  # its URL; without one a file of SQLite

    def prepare(self, folder: Path, redis_url: str, users: int, rows: int) -> None:
        self.env = {
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "SECRET_KEY": "only for benchmarks",
            "ALLOWED_HOSTS": "127.0.0.1",
            "DATABASE_URL": self.database or f"sqlite:///{folder / 'ours.sqlite3'}",
            "DATA_DIR": str(folder),
            "FILES_DIR": str(folder / "files"),
            "REDIS_URL": redis_url,
            "LOG_LEVEL": "WARNING",
            "LIMITS": "off",  # a few clients send what else thousands do
        }
        self.seed("-m", "benchmarks.seed", "project.settings", str(users), str(rows))

    @property
    def publish_headers(self) -> bytes:
        return self.credentials[TOKEN][0]

    def command(self, port: int, *, probed: bool, workers: int) -> Sequence[str]:
        settings = ["--settings", "benchmarks.probed"] if probed else []
        serve = [sys.executable, "manage.py", "serve", "--port", str(port)]
        return [
            *serve,
            "--workers",
            str(workers),
            *settings,
            "--",
            "-v",
            "0",
        ]  # no access log, as the others


class FastAPI(Contestant):
    """uvicorn with uvloop and httptools."""

    def prepare(self, folder: Path, redis_url: str, users: int, rows: int) -> None:
        self.env = {
            "DATABASE_URL": f"sqlite+aiosqlite:///{folder / 'fastapi.sqlite3'}",
            "FILES_DIR": str(folder / "files"),
            "REDIS_URL": redis_url,
        }
        self.seed("-m", "benchmarks.fastapi_app.seed", str(users), str(rows))

    def command(self, port: int, *, probed: bool, workers: int) -> Sequence[str]:
        application = "benchmarks.probed:fastapi" if probed else "benchmarks.fastapi_app.main:app"
        options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        limits = ["--backlog", "4096", "--log-level", "warning"]
        uvicorn = [sys.executable, "-m", "uvicorn", application, "--port", str(port)]
        return [*uvicorn, "--workers", str(workers), *options, *limits]


class StockChannels(Contestant):
    """Stock `daphne`."""

    def prepare(self, folder: Path, redis_url: str, users: int, rows: int) -> None:
        self.env = {
            "DATABASE_PATH": str(folder / "stock.sqlite3"),
            "FILES_DIR": str(folder / "files"),
            "REDIS_URL": redis_url,
            "DJANGO_SETTINGS_MODULE": "benchmarks.stock_channels.settings",
        }
        self.seed(
            "-m", "benchmarks.seed", "benchmarks.stock_channels.settings", str(users), str(rows)
        )

    def command(self, port: int, *, probed: bool, workers: int) -> Sequence[str]:
        application = (
            "benchmarks.probed:stock" if probed else "benchmarks.stock_channels.asgi:application"
        )
        assert workers == 1, "Daphne has no workers"
        return [sys.executable, "-m", "daphne", "-v", "0", "-p", str(port), application]


def everyone() -> Mapping[str, Contestant]:
    """By name; FastAPI is what the others are compared with."""
    found = (
        FastAPI("fastapi", "FastAPI", (NO_AUTH, TOKEN, SESSION), "anyone.bench", "anyone.bench"),
        Ours("ours", "Ours", (SESSION, TOKEN), "room.benches", "public.bench"),
        StockChannels(
            "stock",
            "Stock Channels",
            (SESSION,),
            "room.benches",
            "public.bench",
            has_workers=False,
            is_large=False,
            acknowledges=False,
            may_be_silent=False,  # Daphne pings, and closes what has not answered for 30 s
        ),
    )
    return {contestant.name: contestant for contestant in found}
