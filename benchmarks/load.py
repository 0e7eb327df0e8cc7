"""The load client: raw sockets on one epoll, light enough that the server is what is measured."""

import errno
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from .wire import PONG, Parser, Refused, WebSocketParser, text_frame

READ: Final = 448  # bytes taken at once: small enough for the allocator, larger than a message
READ_MANY: Final = 16_384  # where a read may hold many
EVENTS: Final = 1_024  # events taken from epoll at once
PER_ADDRESS: Final = 5_000  # connections from one source address, of about 28,000 local ports
AT_ONCE: Final = 64  # handshakes under way in a storm
STALL_SECONDS: Final = 15.0  # after a silence of this length, what is missing is lost
MARK: Final = b"#0"  # how the marker of every message begins
IP_BIND_ADDRESS_NO_PORT: Final = 24  # <linux/in.h>
# The kernel makes the sender's buffer as large as twenty segments, and on loopback a segment has
# 64 KiB. With these two a connection takes some 60 KB, where it takes 4 MB without. Kernels differ:
# with segments of 1,000 bytes Linux 6.18 takes 115 KB.
NARROW_SEGMENT: Final = 500
NARROW_BUFFER: Final = 2_304
WIDE_BUFFER: Final = 2**18
FILLS: Final = 96_000  # bytes that no narrow connection takes


def message(number: int, size: int = 100) -> tuple[bytes, bytes]:
    """The JSON data of message `number`, and the text in it by which a copy is known."""
    marker = b"%b%07d;" % (MARK, number)
    return b'{"text":"' + marker.ljust(size, b"a") + b'"}', marker


@dataclass
class Tally:
    """What should have come and what came."""

    expected: int = 0
    received: int = 0
    strange: int = 0  # copies too many, messages of before

    @property
    def lost(self) -> int:
        """Deliveries that did not come."""
        return self.expected - self.received

    @property
    def is_clean(self) -> bool:
        """Whether each message came to each socket once."""
        return not self.lost and not self.strange

    def add(self, other: "Tally") -> None:
        """Count another tally in."""
        self.expected += other.expected
        self.received += other.received
        self.strange += other.strange


class Crowd:
    """Many connections to one server, all of one kind."""

    def __init__(
        self,
        port: int,
        parser: Callable[[], Parser],
        host: str = "127.0.0.1",
        *,
        is_narrow: bool = False,
    ) -> None:
        self.host = host
        self.is_narrow = is_narrow  # whether little can be under way to its connections
        self.port = port
        self.epoll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self.parsers: dict[int, Parser] = {}
        self.tally = Tally()
        self.pinged = False  # whether there were pings in what was parsed last
        self._parser = parser

    def __len__(self) -> int:
        return len(self.sockets)

    def open(self, requests: Iterable[bytes], at_once: int = AT_ONCE) -> float:
        """Open one connection per request, `at_once` handshakes at a time; the seconds it took."""
        waiting = iter(requests)
        pending: dict[int, bytes] = {}  # handshakes under way, and what is still to be said
        started = time.perf_counter()
        self._dial(waiting, at_once, pending)
        while pending:
            events = self.epoll.poll(STALL_SECONDS, EVENTS)
            if not events:
                raise TimeoutError(f"Handshakes stalled, {len(self) - len(pending)} were done.")
            for fd, mask in events:
                if mask & select.EPOLLOUT:
                    self.sockets[fd].sendall(pending[fd])
                    self.epoll.modify(fd, select.EPOLLIN)
                elif self._opens(fd) and fd in pending:
                    del pending[fd]
                    self._dial(waiting, 1, pending)
        return time.perf_counter() - started

    def _dial(self, waiting: Iterator[bytes], count: int, pending: dict[int, bytes]) -> None:
        for request in islice(waiting, count):
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            if self.is_narrow:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BUFFER)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, NARROW_SEGMENT)
            sock.bind((f"127.0.0.{1 + len(self) // PER_ADDRESS}", 0))
            code = sock.connect_ex((self.host, self.port))
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            fd = sock.fileno()
            self.sockets[fd] = sock
            self.parsers[fd] = self._parser()
            pending[fd] = request
            self.epoll.register(fd, select.EPOLLOUT)

    def _opens(self, fd: int) -> bool:
        data = os.read(fd, READ)
        if not data:
            raise Refused("closed in the handshake")
        self.parsers[fd].feed(data)
        return self.parsers[fd].opened

    def settle(self, quiet: float = 0.15, at_most: float = 10.0) -> None:
        """Take what the server says unasked (welcomes, opening comments) until it is quiet."""
        deadline = time.perf_counter() + at_most
        while time.perf_counter() < deadline:
            events = self.epoll.poll(quiet, EVENTS)
            if not events:
                return
            for fd, _ in events:
                self.parse(fd, os.read(fd, READ))

    def widen(self) -> None:
        """Let more be under way to narrow connections, from now on."""
        for sock in self.sockets.values():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WIDE_BUFFER)

    def parse(self, fd: int, data: bytes, marker: bytes = b"\0") -> int:
        """The slow way: how many copies of the marked message are complete now.

        Messages with another marker are strange, all others not ours.
        """
        messages = self.messages(fd, data)
        copies = sum(marker in text for text in messages)
        self.tally.strange += sum(MARK in text for text in messages) - copies
        return copies

    def messages(self, fd: int, data: bytes) -> list[bytes]:
        """The messages that are complete now. Pings are answered."""
        if not data:
            raise ConnectionError("The server closed a connection.")
        parser = self.parsers[fd]
        messages = parser.feed(data)
        self.pinged = isinstance(parser, WebSocketParser) and bool(parser.pings)
        if isinstance(parser, WebSocketParser) and parser.pings:
            for ping in parser.pings:
                self.sockets[fd].sendall(text_frame(ping, PONG))
            parser.pings.clear()
        return messages

    def close(self) -> None:
        """Close every connection."""
        for sock in self.sockets.values():
            sock.close()
        self.epoll.close()

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
