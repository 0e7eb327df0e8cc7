"""Processes that a supervisor starts: told when they are ready, ended, and started again."""

import asyncio
import contextlib
import logging
import os
import signal
import site
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from realtime.server import systemd

logger = logging.getLogger(__name__)

WORKERS_VARIABLE: Final = "REALTIME_WORKERS"  # says in a worker's environment how many there are
QUICK_DEATH: Final = 5.0  # what lives for fewer seconds is restarted with a growing delay
MAX_BACKOFF: Final = 10.0  # seconds: the longest delay before a restart
BEAT: Final = b"1"  # what a worker writes into its pipe
NO_MEMORY: Final = b"0"  # the same, where it gets no more
BEAT_SECONDS: Final = 0.5  # between two signs of life of a worker's event loop
CHECKS: Final = 4  # in the time that a worker may be silent
STACK_SECONDS: Final = 1.0  # that a silent worker gets to write down what holds it

NOT_READY: Final = "Worker %d was not ready after %g s (--start-timeout): it is killed."
SILENT: Final = (
    "Worker %d has shown no sign of life for %g s (--worker-timeout): it is killed. What its "
    "threads were executing follows, unless the process itself was stopped."
)


class Backoff:
    """Seconds to wait before a process is started again, at most `longest`."""

    def __init__(self, longest: float = MAX_BACKOFF) -> None:
        self._longest = longest
        self._delay = 0.0

    def failed(self) -> float:
        """Return the delay after a start that failed."""
        self._delay = min(max(self._delay * 2, 0.5), self._longest)
        return self._delay

    def ended(self, started: float) -> float:
        """Return the delay for a process that was started at this time, and is of no use now."""
        if time.monotonic() - started < QUICK_DEATH:
            return self.failed()
        self._delay = 0.0
        return 0.0


class Worker:
    """One worker process, and the pipe with the signs of life of its event loop.

    The first says that it is ready.
    """

    def __init__(self, process: Process, pipe: int) -> None:
        self.process = process
        self.started = time.monotonic()
        self._pipe: int | None = pipe
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[bool] = self._loop.create_future()
        self._has_beaten = False
        self._is_out_of_memory = False
        self._when_out_of_memory: Callable[[], object] | None = None
        self._loop.add_reader(pipe, self._readable, pipe)

    @classmethod
    async def spawn(
        cls, arguments: Sequence[str], env: Mapping[str, str], listener: int, parent: int
    ) -> "Worker":
        """Start one that accepts on `listener` and stops when the pipe `parent` is closed."""
        beats, write = os.pipe()
        fds = (listener, parent, write)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "realtime.server", arguments[0]),
                *("--fd", str(fds[0]), "--parent-fd", str(fds[1]), "--ready-fd", str(fds[2])),
                *arguments[1:],
                env=env,
                pass_fds=fds,
                stdin=DEVNULL,
                # Ctrl-C goes to the terminal's whole process group; it is for this process, which
                # tells the workers in its own time.
                start_new_session=True,
            )
        except BaseException:
            os.close(beats)
            raise
        finally:
            os.close(write)
        return cls(process, beats)

    def _readable(self, pipe: int) -> None:
        said = os.read(pipe, 4096)
        self._has_beaten = said != b""
        if NO_MEMORY in said:
            self._is_out_of_memory = True
            self._tell_of_memory()
        if not self._ready.done():
            # One that lacks memory before it is ready is of no use: what is lost then may be missed
            # for good.
            self._ready.set_result(BEAT in said)
        if not self._has_beaten:
            self._close()

    def when_out_of_memory(self, call: Callable[[], object]) -> None:
        """Have this called, once, when it says that it gets no more memory, or has said so."""
        self._when_out_of_memory = call
        self._tell_of_memory()

    def _tell_of_memory(self) -> None:
        call = self._when_out_of_memory
        if call is not None and self._is_out_of_memory:
            self._when_out_of_memory = None
            self._loop.call_soon(call)

    def _close(self) -> None:
        if self._pipe is not None:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = None

    async def is_started(self, grace: float, timeout: float) -> bool:
        """Return whether it is ready within `timeout` seconds, 0: whenever; it is ended if not."""
        try:
            async with asyncio.timeout(timeout or None):
                if await asyncio.shield(self._ready):
                    return True
        except TimeoutError:
            logger.error(NOT_READY, self.process.pid, timeout)
        except asyncio.CancelledError:
            await self.end(grace)
            raise
        await self.end(0)
        return False

    async def end(self, grace: float, number: signal.Signals = signal.SIGTERM) -> None:
        """End the process, see `end`, and close the pipe, which what it has forked may hold too."""
        try:
            await end(self.process, grace, number)
        finally:
            self._close()

    async def wait(self, timeout: float) -> int:
        """Return its exit status once it has ended.

        It is killed when its event loop has been silent for `timeout` seconds; never with 0.
        """
        exited = self._loop.create_task(self.process.wait())
        silent = 0  # checks, not seconds: when all processes stood still, they go on together
        try:
            while not exited.done() and silent < CHECKS:
                await asyncio.wait([exited], timeout=timeout / CHECKS or None)
                silent = 0 if self._has_beaten else silent + 1
                self._has_beaten = False
            if not exited.done():
                logger.error(SILENT, self.process.pid, timeout)
                send_signal(self.process, signal.SIGQUIT)
                await asyncio.wait([exited], timeout=STACK_SECONDS)
                send_signal(self.process, signal.SIGKILL)
            return await exited
        finally:
            exited.cancel()
            if self.process.returncode is not None:  # else it drains, and may still say something
                self._close()


async def end(process: Process, grace: float, number: signal.Signals = signal.SIGTERM) -> None:
    """Send the signal, and SIGKILL when the process still lives `grace` seconds later.

    The process has ended when this returns, also where it is cancelled.
    """
    ending = asyncio.ensure_future(_end(process, grace, number))
    cancelled: asyncio.CancelledError | None = None
    while not ending.done():
        try:
            await asyncio.wait([ending])
        except asyncio.CancelledError as error:
            cancelled = error  # no second signal: that cuts what it still serves
    ending.result()
    if cancelled is not None:
        raise cancelled


async def _end(process: Process, grace: float, number: signal.Signals) -> None:
    send_signal(process, number)
    try:
        async with asyncio.timeout(grace):
            await process.wait()
    except TimeoutError:
        send_signal(process, signal.SIGKILL)
        await process.wait()


def send_signal(process: Process, number: signal.Signals) -> None:
    """Send the signal to a process that has not ended."""
    # Not process.send_signal(): that looks whether the process has ended, and takes its exit
    # status away from the event loop, which then complains about an unknown child.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def describe_exit(status: int) -> str:
    """Return how a process has ended: its exit status, or the name of a signal."""
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):  # real-time signals have no name
        return signal.Signals(-status).name
    return f"signal {-status}"


def environment(given: Mapping[str, str], workers: int) -> dict[str, str]:
    """Return the environment of one of so many workers, which can import what this process can."""
    # The script's directory is what `python -m` would not look in.
    paths = [sys.path[0], _own_folder(), given.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, paths))
    kept = {name: value for name, value in given.items() if name not in systemd.VARIABLES}
    return {**kept, WORKERS_VARIABLE: str(workers), "PYTHONPATH": path}


def _own_folder() -> str:
    """Return the folder of this package; "" where each process looks for packages by itself."""
    folder = Path(__file__).resolve().parents[2]
    # PYTHONPATH comes before the standard library: installed packages must not, some are named
    # as its modules are.
    installed = map(Path, (*site.getsitepackages(), site.getusersitepackages()))
    return "" if folder in (each.resolve() for each in installed) else str(folder)
