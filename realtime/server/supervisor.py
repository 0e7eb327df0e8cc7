"""Keeps N worker processes behind one listening socket: restarts, drains and replaces them."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import IO, Any, Final

from realtime.server import systemd
from realtime.server.embedded_valkey import EmbeddedValkey, ValkeyError
from realtime.server.slot import Slot
from realtime.server.sockets import ListenError, ListeningSocket
from realtime.server.workers import Worker, environment

logger = logging.getLogger(__name__)

# Workers without memory that are replaced at the same time: one alone is slow where a machine is
# busy, and all of them would need twice the memory on one that has none.
REPLACED_AT_ONCE: Final = 2

SET_REDIS_URL = (
    "More than one worker needs a Redis to talk through, and the embedded Valkey can't run here "
    "({reason}). Set {variable}, or use one worker."
)


class SupervisorError(Exception):
    """It can't serve. The message is one sentence for the person at the terminal."""


class Supervisor:
    """Serve `application` (`module:attribute`) with `workers` fresh processes.

    SIGTERM and SIGINT drain and stop, SIGHUP replaces the workers one at a time. `drain_delay` is
    the seconds between a SIGTERM and the drain, in which all is served and `readyz` says 503,
    `grace` those a worker may take to drain before it is killed, `start_timeout` those until it has
    to be ready (0: any time), `worker_timeout` those in which its event loop may give no sign of
    life before it is replaced (0: any time), `memory_grace` those it has to drain once it gets no
    more memory and another has been started (0: it stays).
    `options` are further arguments for the worker's command line, see
    `python -m realtime.server --help`.
    `embedded_redis` has a Valkey started with them, and names the environment variable in which
    they find its URL. `on_ready` is called once, when the first start of all workers has
    succeeded; without it one line is printed. `beside` runs for as long as workers do, the drain
    too.

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
        drain_delay: float = 0.0,
        start_timeout: float = 60.0,
        worker_timeout: float = 15.0,
        memory_grace: float = 10.0,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        embedded_redis: str | None = None,
        on_ready: "Callable[[Supervisor], None] | None" = None,
        beside: "Callable[[], Coroutine[Any, Any, None]] | None" = None,
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
        self.drain_delay = drain_delay
        self.start_timeout = start_timeout
        self.options = [*options, "--drain-delay", str(drain_delay)]
        self.embedded_redis = embedded_redis
        self.on_ready = on_ready
        self.beside = beside
        self.stdout = stdout or sys.stdout
        self._given = os.environ if env is None else env
        self.env = environment(self._given, workers)
        self._listener: ListeningSocket | None = None
        self._replacing = asyncio.Lock()  # held while SIGHUP has the workers replaced
        out_of_memory = asyncio.Semaphore(REPLACED_AT_ONCE)
        self._slots = [
            Slot(
                self._start_worker,
                self._begin,
                out_of_memory,
                grace=grace,
                worker_timeout=worker_timeout,
                memory_grace=memory_grace,
            )
            for _ in range(workers)
        ]
        self._failure: SupervisorError | None = None
        self._is_replacement_due = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it serves: `http://host:port`, or `unix:path`. Right after `bind()`."""
        if self.uds:
            return f"unix:{self.uds}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def pids(self) -> list[int]:
        """Return the process ids of the workers that run now."""
        return [slot.worker.process.pid for slot in self._slots if slot.worker]

    def bind(self) -> None:
        """Open the listening socket; with port 0, `port` is the real one afterwards.

        One that is passed in (LISTEN_FDS) takes the place of host and port.
        """
        if self._listener is not None:
            return
        try:
            listener = ListeningSocket.open(self.host, self.port, self.uds, self._given)
        except ListenError as error:
            raise SupervisorError(str(error)) from error
        self._listener, self.uds = listener, listener.path
        if listener.address:
            host, self.port = listener.address
            self.host = host if listener.is_passed else self.host

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

    async def _run(self) -> None:
        self._stopping = asyncio.Event()
        self._starting = self.workers
        self._stop_signal = signal.SIGTERM
        # Held open for as long as this process lives: a worker stops when it reads its end.
        self._alive_read, self._alive_write = os.pipe()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._begin(self._replace()))
        valkey = EmbeddedValkey(self.env)
        beside = loop.create_task(self._run_beside(self.beside)) if self.beside else None
        try:
            self._begin(self._notify_watchdog())
            self._begin(self._start(valkey))
            await self._stopping.wait()
        finally:
            left = list(self._tasks)
            for task in left:
                task.cancel()
            # Together: a worker that is replaced by now may take as long as all others.
            cancelled = asyncio.gather(*left, return_exceptions=True)
            await self._end_workers()
            await cancelled
            await valkey.end()
            if beside is not None:
                beside.cancel()
                await asyncio.gather(beside, return_exceptions=True)

    async def _start(self, valkey: EmbeddedValkey) -> None:
        if self.embedded_redis:
            try:
                self.env[self.embedded_redis] = await valkey.start()
            except ValkeyError as error:
                self._fail(SET_REDIS_URL.format(reason=error, variable=self.embedded_redis))
                return
            self._begin(valkey.keep())
        for slot in self._slots:
            self._begin(self._keep(slot))

    async def _run_beside(self, beside: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await beside()
        except Exception:  # not worth the workers
            logger.exception("What runs beside the workers has failed; they go on without it")

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        if self._stopping.is_set():
            work.close()
            return
        self._tasks.add(task := asyncio.get_running_loop().create_task(work))
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            # Better to end, and be started again, than to live on over a dead port.
            logger.critical("The supervisor failed", exc_info=error)
            self._fail("The supervisor failed; its traceback is above.")

    def _stop(self, number: signal.Signals) -> None:
        self._stop_signal = number
        self._stopping.set()

    async def _end_workers(self) -> None:
        systemd.notify(self._given, "STOPPING=1")
        number = self._stop_signal
        running = [slot.worker for slot in self._slots if slot.worker]
        delay = self.drain_delay if running and number == signal.SIGTERM else 0
        # Each process closes the socket, and the last of them should be one that has accepted what
        # waits: the kernel resets that. A Unix socket's file is needed while all is served.
        if not (self.uds and delay):
            self._unbind()
        ended = asyncio.gather(*(worker.end(delay + self.grace, number) for worker in running))
        await asyncio.sleep(delay)
        # What connects from now on is refused, not kept waiting; a worker that can't close, because
        # its loop is held, has it done when this pipe is closed.
        self._unbind()
        os.close(self._alive_write)
        await ended
        os.close(self._alive_read)

    def _fail(self, message: str) -> None:
        self._failure = self._failure or SupervisorError(message)
        self._stopping.set()

    async def _notify_watchdog(self) -> None:
        while seconds := systemd.watchdog_seconds(self._given):
            systemd.notify(self._given, "WATCHDOG=1")
            await asyncio.sleep(seconds)

    def _announce(self) -> None:
        systemd.notify(self._given, "READY=1")
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
        arguments = [self.application, *self.options]
        if not self._listener.is_passed:
            arguments.append("--shut-fd")
        fds = self._listener.sock.fileno(), self._alive_read
        try:
            worker = await Worker.spawn(arguments, self.env, *fds)
        except Exception as error:  # no such file, or no process, thread or descriptor to be had
            logger.error("Can't start %s: %s", sys.executable, error)
            return None
        return worker if await worker.is_started(self.grace, self.start_timeout) else None

    async def _keep(self, slot: Slot) -> None:
        if not await slot.renew(self.grace):
            # What went wrong is on stderr already, in the worker's own words.
            self._fail("The worker could not start; its own message is above.")
            return
        self._starting -= 1
        if not self._starting:
            self._announce()
        await slot.keep()

    async def _replace(self) -> None:
        """Replace the workers one at a time; a new one that fails leaves the old ones alone.

        Called again while it runs, it does so once more; further calls are that one.
        """
        if self._is_replacement_due:
            return
        self._is_replacement_due = True
        async with self._replacing:
            self._is_replacement_due = False
            for slot in self._slots:
                if not await slot.renew(self.grace):
                    logger.error("The new worker could not start; the old ones stay.")
                    return
