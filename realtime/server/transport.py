"""A connection's bytes, from and to a socket.

Twisted's TCP transport costs about ten Python calls for every read and write, and keeps what the
kernel does not take without limit. `SocketTransport` does a read or a write in one call and says
when something is left over; Twisted keeps the listening ports, the endpoints and TLS.
"""

import asyncio
import contextlib
import socket
from typing import Any, Protocol

from realtime.server import sendfile
from realtime.server.access_log import logger
from realtime.server.fastlane import SocketLane
from realtime.server.receiver import NOBODY, Receiver
from realtime.server.sendfile import Progress
from realtime.server.timeouts import Timeouts

READ_SIZE = 65_536  # bytes taken from a socket at once
CLOSING_GRACE = 2.0  # seconds in which a peer that is refused may read the answer
Address = list[Any] | None  # host and port as a scope wants them; None for a Unix socket


class Transport(Protocol):
    """The interface of a socket's transport, and of Twisted's for TLS."""

    receiver: Receiver
    secure: bool
    copies_files: bool
    closed: bool
    peer: Address
    host: Address
    reading: bool

    @property
    def pending(self) -> bool:
        """Whether something written has not gone out yet."""

    @property
    def lane(self) -> SocketLane | None:
        """Return the fast lane, where the transport has one."""

    def renew_lane(self) -> SocketLane | None:
        """Return a closed lane for the next response, where the transport has lanes."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None:
        """Wait until nothing is pending, or the connection is over."""

    async def send_file(self, fileno: int, offset: int, count: int, progress: Progress) -> None:
        """Have the kernel copy a part of a file, no faster than the peer reads.

        `progress` is told how much of it went. Where `copies_files`. Raises EOFError if the file is
        shorter.
        """

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self, *, linger: bool = False) -> None:
        """Send what is pending, then close.

        With `linger`, a peer that is still sending gets time to read the answer: closing with
        unread data resets the connection and loses it.
        """

    def abort(self) -> None:
        """Close now; what is pending is lost."""


class SocketTransport:
    """A non-blocking stream socket on the event loop."""

    __slots__ = (
        *("_closing", "_ended", "_fd", "_linger", "_loop", "_out", "_recv"),
        *("_sock", "_timeouts", "_waiters", "closed", "host", "lane", "peer", "reading"),
        *("receiver", "send"),
    )
    secure = False
    copies_files = sendfile.AVAILABLE

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeouts: Timeouts,
        sock: socket.socket,
        peer: Address,
        host: Address,
    ) -> None:
        self._loop = loop
        self._timeouts = timeouts
        self._sock = sock
        self._fd = sock.fileno()
        self._recv = sock.recv
        self.send = sock.send  # at once, and perhaps only a part
        self._out: list[bytes | memoryview] = []
        self._waiters: list[asyncio.Future[None]] | None = None
        self._closing = False
        self._ended = False  # the peer has said that it sends no more
        self._linger = False
        self.closed = False
        self.reading = False
        self.peer = peer
        self.host = host
        self.lane = SocketLane(self)
        self.receiver: Receiver

    def renew_lane(self) -> SocketLane:
        # A new one: an application that has kept the last one must not reach this response.
        self.lane.shut()
        self.lane = SocketLane(self)
        return self.lane

    @property
    def pending(self) -> bool:
        return bool(self._out)

    # Reading

    def _readable(self) -> None:
        try:
            data = self._recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.abort()
            return
        try:
            if not data:
                self._end()
                return
            if not self._closing:  # else what was said last is still going out; no more requests
                self.receiver.data_received(data)
        except Exception:
            logger.exception("Error in the connection with %s", self.peer)
            self.abort()
        # uvloop reports a reset once. When data came before it, that was it.
        if not self.closed and self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.abort()

    def _end(self) -> None:
        # Level-triggered: an end that stays readable would be reported for ever.
        self.pause_reading()
        self._timeouts.paused.pop(self, None)
        self._ended = True
        if self in self._timeouts.lingering:
            self.abort()
        else:
            self.receiver.eof_received()

    def pause_reading(self) -> None:
        if self.reading:
            self.reading = False
            self._loop.remove_reader(self._fd)
            self._timeouts.paused[self] = None

    def resume_reading(self) -> None:
        if not self.reading and not self.closed and not self._ended:
            self.reading = True
            self._loop.add_reader(self._fd, self._readable)
            self._timeouts.paused.pop(self, None)

    def fileno(self) -> int:
        """Return the file descriptor, to be polled while it is not read, or copied to."""
        return self._fd

    # Writing

    def write(self, data: bytes) -> None:
        if self._out:
            self._out.append(data)
            return
        if self.closed:
            return
        try:
            sent = self.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.abort()
            return
        if sent != len(data):
            self.keep(data, sent)

    def keep(self, data: bytes, sent: int) -> None:
        """Queue what the socket did not take of data: everything after the first `sent` bytes."""
        self._out.append(memoryview(data)[sent:])
        self.lane.pause()
        self._timeouts.stalled[self] = self._loop.time()
        self._loop.add_writer(self._fd, self._writable)

    def _writable(self) -> None:
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        try:
            sent = self.send(data)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.abort()
            return
        if sent != len(data):
            out[:] = (memoryview(data)[sent:],)
            self._timeouts.stalled[self] = self._loop.time()
            return
        out.clear()
        self._timeouts.stalled.pop(self, None)
        self._loop.remove_writer(self._fd)
        self.lane.resume()
        self._wake()
        if self._closing:
            self._finish()
        else:
            self.receiver.flushed()

    def _wake(self) -> None:
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        self._waiters = None

    async def drain(self) -> None:
        while self._out and not self.closed:
            waiter = self._loop.create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            await waiter

    async def send_file(self, fileno: int, offset: int, count: int, progress: Progress) -> None:
        await sendfile.send(self, fileno, offset, count, progress)

    # Closing

    def close(self, *, linger: bool = False) -> None:
        if self.closed or self._closing:
            return
        self._closing = True
        self._linger = linger
        self.lane.shut()
        if not self._out:
            self._finish()

    def _finish(self) -> None:
        if not self._linger or self._ended or not self._timeouts.has_room:
            self.abort()
            return
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        self._timeouts.lingering.add(self)
        self._loop.call_soon(self._lost)
        self.resume_reading()
        self._loop.call_later(CLOSING_GRACE, self.abort)

    def abort(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.lane.shut()
        if self.reading:
            self.reading = False
            self._loop.remove_reader(self._fd)
        else:
            self._timeouts.paused.pop(self, None)
        if self._out:
            self._out.clear()
            self._loop.remove_writer(self._fd)
            self._timeouts.stalled.pop(self, None)
        self._sock.close()
        self._wake()
        if self in self._timeouts.lingering:
            self._timeouts.lingering.remove(self)
        else:
            # Not now: what is writing or reading does not expect to lose its state underneath.
            self._loop.call_soon(self._lost)

    def _lost(self) -> None:
        receiver, self.receiver = self.receiver, NOBODY
        receiver.connection_lost()

    def peer_left(self, reset: bool) -> None:
        self.receiver.peer_left(reset)
