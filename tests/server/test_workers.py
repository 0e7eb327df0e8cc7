"""How a supervisor's processes are started again, and ended; test_supervisor has the whole."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from realtime.server import workers
from realtime.server.workers import Backoff, Worker, describe_exit, end, environment


@asynccontextmanager
async def running(code: str) -> AsyncIterator[Worker]:
    """A worker that runs the code, which knows its `pipe`, and then stays."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    code = f"import os, time; pipe = {write}; {code}; time.sleep(600)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, pass_fds=[write])
    os.close(write)
    worker = Worker(process, read)
    try:
        yield worker
    finally:
        await end(process, 0)
        worker._close()


def test_delay_grows_with_each_failure_up_to_a_limit() -> None:
    backoff = Backoff()
    assert [backoff.failed() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0]


def test_delay_is_none_after_a_life_that_was_not_short() -> None:
    backoff, now = Backoff(), time.monotonic()
    assert [backoff.ended(now), backoff.ended(now)] == [0.5, 1.0]
    assert backoff.ended(now - workers.QUICK_DEATH) == 0
    assert backoff.ended(now) == 0.5


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit status 0"), (3, "exit status 3"), (-9, "SIGKILL"), (-37, "signal 37")],
)
def test_the_end_of_a_process_in_words(status: int, words: str) -> None:
    assert describe_exit(status) == words


def test_environment_of_a_worker_says_how_many_and_where_modules_are() -> None:
    given = {"A": "b", "PYTHONPATH": "/elsewhere"}
    env = environment(given, 3)
    assert (env["A"], env[workers.WORKERS_VARIABLE]) == ("b", "3")
    assert env["PYTHONPATH"].split(os.pathsep)[-1] == "/elsewhere"
    assert given == {"A": "b", "PYTHONPATH": "/elsewhere"}
    assert not environment({}, 1)["PYTHONPATH"].endswith(os.pathsep)


IMPORT_AS_A_WORKER = """
import subprocess, sys
from realtime.server.workers import environment
command = [sys.executable, "-c", "import argparse, realtime; print(realtime.__file__)"]
sys.exit(subprocess.run(command, env=environment({}, 1)).returncode)
"""


def test_installed_packages_hide_no_module_of_the_standard_library_from_a_worker(
    tmp_path: Path,
) -> None:
    venv.create(tmp_path, symlinks=True)
    (installed,) = tmp_path.glob("lib/python*/site-packages")
    shutil.copytree(Path(workers.__file__).parent, installed / "realtime" / "server")
    (installed / "realtime" / "__init__.py").touch()
    (installed / "argparse.py").write_text("raise ImportError('for Python 2.6')")
    done = subprocess.run(
        [tmp_path / "bin" / "python", "-c", IMPORT_AS_A_WORKER],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(installed / "realtime" / "__init__.py")


@pytest.mark.parametrize(("said", "is_started"), [("1", True), ("01", True), ("0", False)])
async def test_worker_that_lacks_memory_before_it_is_ready_is_ended(
    said: str, is_started: bool
) -> None:
    async with running(f"os.write(pipe, b'{said}')") as worker:
        assert await worker.is_started(0, 20) is is_started
        assert (worker.process.returncode is None) is is_started


async def test_process_that_ignores_sigterm_is_killed() -> None:
    code = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    )
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=pipe)
    assert process.stdout is not None
    await process.stdout.readline()
    await end(process, 0.1)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("turns", range(1, 6))
async def test_process_has_ended_also_where_ending_it_is_cancelled(turns: int, times: int) -> None:
    process = await asyncio.create_subprocess_exec("sleep", "600")
    ending = asyncio.create_task(end(process, 0))
    for _ in range(times):
        for _ in range(turns):
            await asyncio.sleep(0)
        ending.cancel()
    await asyncio.wait([ending])
    assert process.returncode in (-signal.SIGTERM, -signal.SIGKILL)
    assert ending.cancelled()


async def test_process_that_drains_is_told_once_also_where_ending_it_is_cancelled() -> None:
    code = (
        "import signal, time; signal.signal(2, lambda *told: print('told', flush=True)); "
        "print(flush=True); time.sleep(0.5)"
    )
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=pipe)
    assert process.stdout is not None
    await process.stdout.readline()
    ending = asyncio.create_task(end(process, 20, signal.SIGINT))
    assert await process.stdout.readline() == b"told\n"
    ending.cancel()
    await asyncio.wait([ending])
    assert process.returncode == 0
    assert await process.stdout.read() == b""


@pytest.mark.parametrize(("timeout", "is_started"), [(0.25, False), (20, True), (0, True)])
async def test_worker_that_is_not_ready_in_time_is_killed_and_named(
    timeout: float, is_started: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with running("time.sleep(1); os.write(pipe, b'1')") as worker:
        assert await worker.is_started(0, timeout) is is_started
        assert (worker.process.returncode is None) is is_started
        said = f"Worker {worker.process.pid} was not ready after {timeout} s (--start-timeout)"
        assert (said not in caplog.text) is is_started
