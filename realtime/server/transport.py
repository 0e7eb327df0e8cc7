"""A connection's bytes: a socket of our own, or Twisted's TLS underneath the same interface.

Twisted's TCP transport costs about ten Python calls for every read and write, and keeps what the
kernel does not take without limit. `SocketTransport` does a read or a write in one call and says
when something is left over; Twisted keeps the listening ports, the endpoints and TLS.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.protocol import Protocol as TwistedProtocol

from realtime.server import sendfile
from realtime.server.access_log import logger
from realtime.server.fastlane import SocketLane
from realtime.server.timeouts import Timeouts

READ_SIZE = 65_536
"""Bytes taken from a socket at once."""

CLOSING_GRACE = 2.0
"""Seconds in which a peer that is being refused may read the answer before the socket is closed."""

TLS_FLUSH = 300.0
"""Seconds in which a TLS peer may take what is pending when its connection is closed."""

Address = list[Any] | None
"""Host and port as a scope wants them; None for a Unix socket."""


class Receiver(Protocol):
    """What a transport talks to."""

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> None:
        """Take note that the peer sends no more; it may still be reading."""

    def peer_left(self, reset: bool) -> None:
        """Take note that the peer has closed while it was not read: orderly, or by a reset."""

    def flushed(self) -> None:
        """All that was written has gone out, after a time when it had not."""

    def connection_lost(self) -> None:
        """Take note that the connection is over; called once."""


class Transport(Protocol):
    """The interface both transports have."""

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

    async def send_file(
        self, fileno: int, offset: int, count: int, progress: Callable[[int], None]
    ) -> None:
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
        "_closing",
        "_ended",
        "_fd",
        "_linger",
        "_loop",
        "_out",
        "_recv",
        "_sock",
        "_timeouts",
        "_waiters",
        "closed",
        "host",
        "lane",
        "peer",
        "reading",
        "receiver",
        "send",
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
        """Return the file descriptor, which is polled while the connection is not read."""
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
        if self._waiters is not None:
            for waiter in self._waiters:
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

    async def send_file(
        self, fileno: int, offset: int, count: int, progress: Callable[[int], None]
    ) -> None:
        while count and not self.closed:
            if self._out:
                await self.drain()
                continue
            size = min(count, sendfile.WINDOW)
            try:
                if sendfile.in_memory(fileno, offset, size):
                    sent = os.sendfile(self._fd, fileno, offset, size)
                else:
                    sent = await sendfile.copy(self._fd, fileno, offset, size)
            except (BlockingIOError, InterruptedError):
                if not self.closed:
                    self.keep(b"", 0)  # nothing, which goes out once there is room again
                continue
            except OSError as error:
                if error.errno not in sendfile.UNABLE:
                    self.abort()
                    return
                data = await sendfile.read(fileno, offset, size)
                self.write(data)
                sent = len(data)
            if not sent:
                raise EOFError(f"The file ended {count} bytes before its part did.")
            progress(sent)
            offset += sent
            count -= sent
            await asyncio.sleep(0)

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
        if not self._linger or self._ended:
            self.abort()
            return
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        lost, self.receiver = self.receiver, _Discard(self)
        self._loop.call_soon(lost.connection_lost)
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
        # Not now: whoever is writing or reading does not expect to lose its state underneath.
        self._loop.call_soon(self.receiver.connection_lost)

    def peer_left(self, reset: bool) -> None:
        """Tell the receiver that the peer has closed while the socket is not read."""
        self.receiver.peer_left(reset)


class _Discard:
    """Receives what a refused peer is still sending."""

    __slots__ = ("_transport",)

    def __init__(self, transport: SocketTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        pass

    def eof_received(self) -> None:
        self._transport.abort()

    def peer_left(self, reset: bool) -> None:
        self._transport.abort()

    def flushed(self) -> None:
        pass

    def connection_lost(self) -> None:
        pass


class TwistedTransport(TwistedProtocol):
    """The same over a Twisted transport, for endpoints with TLS.

    It is the protocol at the top of Twisted's stack and its push producer: Twisted says when its
    buffers are full by pausing it. It has no fast lane: what of its buffers is empty is not told.
    """

    lane = None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._paused = False
        self._waiters: list[asyncio.Future[None]] = []
        self.closed = False
        self.reading = True
        self.peer: Address = None
        self.host: Address = None
        self.secure = True
        self.copies_files = False  # what is encrypted has to come by
        self.receiver: Receiver
        self.accepted: Any = None  # called with this transport once it is connected
        self._closing: asyncio.TimerHandle | None = None

    def renew_lane(self) -> None:
        pass

    # Called by Twisted

    def connectionMade(self) -> None:
        peer, host = self.transport.getPeer(), self.transport.getHost()
        if hasattr(peer, "port"):
            self.peer, self.host = [str(peer.host), peer.port], [str(host.host), host.port]
        self.transport.registerProducer(self, True)
        self.accepted(self)

    def dataReceived(self, data: bytes) -> None:
        if not self.closed:
            self.receiver.data_received(data)

    def connectionLost(self, reason: Any = None) -> None:
        if not self.closed:
            self.closed = True
            self._wake()
        if self._closing is not None:
            self._closing.cancel()
        self.receiver.connection_lost()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._wake()
        if not self.closed:
            self.receiver.flushed()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def stopProducing(self) -> None:
        pass

    # The interface

    @property
    def pending(self) -> bool:
        return self._paused

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.transport.write(data)

    async def drain(self) -> None:
        while self._paused and not self.closed:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    async def send_file(
        self, fileno: int, offset: int, count: int, progress: Callable[[int], None]
    ) -> None:
        raise RuntimeError("TLS can't send a file: send its bytes.")

    def pause_reading(self) -> None:
        if self.reading and not self.closed:
            self.reading = False
            self.transport.pauseProducing()

    def resume_reading(self) -> None:
        if not self.reading and not self.closed:
            self.reading = True
            self.transport.resumeProducing()

    def close(self, *, linger: bool = False) -> None:
        if not self.closed:
            self.resume_reading()  # TLS needs to read in order to finish writing
            self.closed = True
            # Twisted keeps the connection until its producer is done.
            self.transport.unregisterProducer()
            self._wake()
            self.transport.loseConnection()
            self._closing = self._loop.call_later(TLS_FLUSH, self.transport.abortConnection)

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self._wake()
            self.transport.abortConnection()
