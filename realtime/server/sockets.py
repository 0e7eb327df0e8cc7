"""Listening sockets: bound here, for a host and port or a path, or passed in by systemd."""

import contextlib
import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from realtime.server import systemd

BACKLOG = 4096
"""Connections the kernel queues before a worker accepts them."""


class ListenError(Exception):
    """There is nothing to listen on; the message is a sentence with the reason."""


class ListeningSocket:
    """A socket that is shared with child processes, and how it is given up."""

    def __init__(self, sock: socket.socket, *, is_passed: bool) -> None:
        self.sock = sock
        self.is_passed = is_passed  # somebody else listens on it before us and after us
        self.sock.listen(BACKLOG)
        self.sock.setblocking(False)

    @classmethod
    def open(
        cls, host: str, port: int, path: str | None, env: Mapping[str, str]
    ) -> "ListeningSocket":
        """Return the one that `env` passes in, or else bind one. Raises ListenError."""
        passed = systemd.passed_sockets(env)
        if len(passed) > 1:
            raise ListenError(f"It takes one socket; LISTEN_FDS passes {len(passed)}.")
        if passed:
            return cls(passed[0], is_passed=True)
        return cls(_bind_unix(path) if path else _bind_tcp(host, port), is_passed=False)

    @property
    def path(self) -> str | None:
        """Return the path of a Unix socket."""
        name: str | None = self.sock.getsockname() if self._is_unix else None
        return name

    @property
    def address(self) -> tuple[str, int] | None:
        """Return host and port, but of a Unix socket."""
        return None if self._is_unix else self.sock.getsockname()[:2]

    @property
    def _is_unix(self) -> bool:
        return self.sock.family == socket.AF_UNIX

    def close(self) -> None:
        """Close it in this process, and remove the file of a Unix socket that was made here."""
        if self.path and not self.is_passed:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        self.sock.close()


def _bind_tcp(host: str, port: int) -> socket.socket:
    try:
        if not 0 <= int(port) <= 65_535:  # getaddrinfo takes the last 16 bits
            raise OverflowError("a port is 0 to 65535")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, OverflowError) as error:
        raise ListenError(f"{host}:{port} is not an address to listen on: {error}.") from error
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Now, not when a worker takes over: a connection that is made before inherits it too, and
        # would have the second part of each answer wait 40 ms for the client's acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise ListenError(f"Can't listen on {host}:{port}: {error.strerror}.") from error
    return sock


def _bind_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if Path(path).is_socket():
            if not _is_listening(path):
                os.unlink(path)  # left behind by a process that was killed
        elif Path(path).exists():
            raise FileExistsError(errno.EEXIST, "a file or folder is there, no socket")
        sock.bind(path)
        _let_connect(path)
    except OSError as error:
        sock.close()
        raise ListenError(f"Can't listen on {path}: {error.strerror or error}.") from error
    return sock


def _let_connect(path: str) -> None:
    """Let those connect to a Unix socket whom the umask lets read files."""
    # To connect takes the right to write (unix(7)), which the usual umask, 022, leaves to the owner
    # alone: no proxy of another user could.
    readable = os.stat(path).st_mode & 0o444
    os.chmod(path, readable | readable >> 1)


def _is_listening(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        return True
