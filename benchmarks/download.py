"""Downloads: bodies that are read to their end, and what is wrong with those that have none."""

import json
import select
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Final

from .load import STALL_SECONDS, Tally
from .wire import BodyParser

PIECE: Final = 2**18  # bytes taken at once
MIB: Final = 2**20
LINE: Final = 1_024  # bytes in which the last line of NDJSON has room


class Count:
    """Counts a body's bytes."""

    def __init__(self) -> None:
        self.bytes = 0

    def feed(self, data: bytes) -> None:
        """Take more of the body in."""
        self.bytes += len(data)

    def tally(self, mib: int, *, ended: bool) -> Tally:
        """In MiB: a body of one byte less has lost one, and so has one without its end."""
        whole = self.bytes // MIB if ended else min(self.bytes // MIB, mib - 1)
        return Tally(mib, min(whole, mib), strange=int(self.bytes > mib * MIB))


class Lines:
    """Counts the lines of NDJSON, and keeps the last one."""

    def __init__(self) -> None:
        self.count = 0
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Take more of the body in."""
        self.count += data.count(b"\n")
        self._tail = data[-LINE:] if len(data) >= LINE else (self._tail + data)[-LINE:]

    @property
    def last(self) -> bytes:
        """The last line, whole or not."""
        return self._tail.removesuffix(b"\n").rpartition(b"\n")[2]

    def tally(self, rows: int, keys: Iterable[str], *, ended: bool) -> Tally:
        """Of rows with the ids 1 to `rows`. Strange is a last line that isn't the last row's."""
        try:
            last = json.loads(self.last)
            is_right = last["id"] == rows and list(last) == list(keys)
        except (ValueError, KeyError, TypeError):
            is_right = False
        received = self.count if ended else min(self.count, rows - 1)
        return Tally(rows, received, strange=int(not is_right))


def connect(port: int) -> socket.socket:
    """A connection that does not wait for ever."""
    sock = socket.create_connection(("127.0.0.1", port), STALL_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_all(
    port: int, request: bytes, takers: Iterable[Callable[[bytes], None]]
) -> tuple[list[BodyParser], float]:
    """The same request once for each taker, all at once; the parsers, and the seconds it took."""
    with ExitStack() as stack, select.epoll() as epoll:
        reading = {}
        for take in takers:
            sock = stack.enter_context(connect(port))
            reading[sock.fileno()] = sock, BodyParser(), take
            epoll.register(sock.fileno(), select.EPOLLIN)
        parsers = [parser for _, parser, _ in reading.values()]
        started = time.perf_counter()
        for sock, _, _ in reading.values():
            sock.sendall(request)
        while reading and (events := epoll.poll(STALL_SECONDS)):
            for fd, _ in events:
                sock, parser, take = reading[fd]
                data = sock.recv(PIECE)
                take(parser.feed(data))
                if parser.ended or not data:
                    epoll.unregister(fd)
                    del reading[fd]
        return parsers, time.perf_counter() - started


def discard(sock: socket.socket, parser: BodyParser, count: Count) -> None:
    """Read the rest of a body into a buffer that is never looked at, if it has a length."""
    buffer = bytearray(MIB)
    try:
        while not parser.ended:
            if parser.left is None:
                data = sock.recv(PIECE)
                if not data:
                    return
                count.feed(parser.feed(data))
            else:
                size = sock.recv_into(buffer)
                if not size:
                    return
                parser.skip(size)
                count.bytes += size
    except (TimeoutError, ConnectionError):
        return  # what has not come by now is lost
