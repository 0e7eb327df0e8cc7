"""systemd's protocols: sd_listen_fds(3), sockets passed in, and sd_notify(3), the state passed out.

Both are spoken where the environment asks for them, by systemd or by anything else.
"""

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Final

FIRST_FD: Final = 3
VARIABLES: Final = frozenset(
    ("LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
)
"""What is said in the environment of one process, and not meant for its children."""


def passed_sockets(env: Mapping[str, str]) -> list[socket.socket]:
    """Return the listening sockets that `env` passes to this process."""
    if env.get("LISTEN_PID") != str(os.getpid()):
        return []
    fds = range(FIRST_FD, FIRST_FD + int(env.get("LISTEN_FDS", "0")))
    return [socket.socket(fileno=fd) for fd in fds]


def notify(env: Mapping[str, str], state: str) -> None:
    """Send `READY=1` and the like to the socket that `env` names, if any."""
    address = env.get("NOTIFY_SOCKET", "")
    if address:
        if address.startswith("@"):
            address = "\0" + address[1:]
        # Nobody is there, or reads; or there is no descriptor or memory for it now.
        with (
            contextlib.suppress(OSError, MemoryError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        ):
            sock.setblocking(False)
            sock.sendto(state.encode(), address)


def watchdog_seconds(env: Mapping[str, str]) -> float | None:
    """Return how often to notify of `WATCHDOG=1`: twice in the time that `env` allows."""
    if env.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = int(env.get("WATCHDOG_USEC", "0"))
    return microseconds / 2e6 if microseconds else None
