"""Keeps N worker processes behind one listening socket: restarts, drains and replaces them."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from realtime.server.embedded_valkey import EmbeddedValkey, ValkeyError
from realtime.server.workers import Backoff, Worker, describe_exit, end, environment

logger = logging.getLogger(__name__)

LISTEN_BACKLOG = 4096
"""Connections the kernel queues before a worker accepts them."""

SET_REDIS_URL = (
    "More than one worker needs a Redis to talk through, and the embedded Valkey can't run here "
    "({reason}). Set {variable}, or use one worker."
)


class SupervisorError(Exception):
    """It can't serve. The message is one sentence for whoever started it."""


class Supervisor:
    """Serve `application` (`module:attribute`) with `workers` fresh processes.

    SIGTERM and SIGINT drain and stop, SIGHUP replaces the workers one at a time. `grace` is the
    seconds a worker may take to drain before it is killed, `worker_timeout` those in which its
    event loop may give no sign of life before it is replaced (0: any time). `options` are further
    arguments for the worker's command line, see `python -m realtime.server --help`.
    `embedded_redis` has a Valkey started with them, and names the environment variable in which
    they find its URL. `on_ready` is called once, when the first start of all workers has
    succeeded; without it one line is printed.

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
        worker_timeout: float = 15.0,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        embedded_redis: str | None = None,
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
        self.worker_timeout = worker_timeout
        self.options = list(options)
        self.embedded_redis = embedded_redis
        self.on_ready = on_ready
        self.stdout = stdout or sys.stdout
        self.env = environment(os.environ if env is None else env, workers)
        self._listener: socket.socket | None = None
        self._slots: list[Worker | None] = [None] * workers
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
        valkey = EmbeddedValkey(self.env)
        try:
            if self.embedded_redis:
                self.env[self.embedded_redis] = await valkey.start()
                begin(valkey.keep())
            for slot in range(self.workers):
                begin(self._keep(slot))
            await self._stopping.wait()
        except ValkeyError as error:
            self._fail(SET_REDIS_URL.format(reason=error, variable=self.embedded_redis))
        finally:
            left = list(tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await asyncio.gather(*(end(w.process, self.grace) for w in self._slots if w))
            await valkey.end()
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

    async def _start_worker(self) -> Worker | None:
        """Return a worker that is ready, or None after one that failed to become so."""
        assert self._listener is not None
        listener = self._listener.fileno()
        arguments = [self.application, *self.options]
        try:
            worker = await Worker.spawn(arguments, self.env, listener, self._alive_read)
        except Exception as error:  # no such file, or no process, thread or descriptor to be had
            logger.error("Can't start %s: %s", sys.executable, error)
            return None
        return worker if await worker.is_started(self.grace) else None

    async def _keep(self, slot: int) -> None:
        """Keep a worker running in the slot for as long as this process serves."""
        backoff, ever = Backoff(), False
        while True:
            worker = self._slots[slot]
            if worker is None:
                worker = await self._start_worker()
                if self._slots[slot] is not None:  # _replace() was faster
                    if worker:
                        await end(worker.process, self.grace)
                    continue
                self._slots[slot] = worker
                if worker is None:
                    if not ever:
                        # What went wrong is on stderr already, in the worker's own words.
                        self._fail("The worker could not start; its own message is above.")
                        return
                    delay = backoff.failed()
                    logger.error("The worker could not start; trying again in %.1f s.", delay)
                    await asyncio.sleep(delay)
                    continue
                if not ever:
                    ever = True
                    self._starting -= 1
                    if not self._starting:
                        self._announce()
            status = await worker.wait(self.worker_timeout)
            if self._slots[slot] is not worker:
                continue  # _replace() put another one here
            self._slots[slot] = None
            delay = backoff.ended(worker.started)
            again = f"again in {delay:.1f} s" if delay else "again"
            how = describe_exit(status)
            logger.warning("Worker %d ended (%s); starting %s.", worker.process.pid, how, again)
            await asyncio.sleep(delay)

    async def _replace(self) -> None:
        """Replace the workers one at a time; a new one that fails leaves the old ones alone."""
        async with self._replacing:
            for slot in range(self.workers):
                new = await self._start_worker()
                if new is None:
                    logger.error("The new worker could not start; the old ones stay.")
                    return
                old, self._slots[slot] = self._slots[slot], new
                if old is not None:
                    try:
                        await end(old.process, self.grace)
                    except asyncio.CancelledError:
                        await end(old.process, self.grace)
                        raise


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
