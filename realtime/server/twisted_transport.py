"""The bytes of a connection with TLS, which Twisted encrypts."""

import asyncio
from typing import Any

from twisted.internet.protocol import Protocol

from realtime.server.receiver import Receiver
from realtime.server.sendfile import Progress
from realtime.server.timeouts import Timeouts
from realtime.server.transport import CLOSING_GRACE, Address


class TwistedTransport(Protocol):
    """Write and read as `SocketTransport` does, over a Twisted transport.

    It is the protocol at the top of Twisted's stack and its push producer: Twisted says when its
    buffers are full by pausing it. It has no fast lane: what of its buffers is empty is not told.
    """

    lane = None

    def __init__(self, loop: asyncio.AbstractEventLoop, timeouts: Timeouts) -> None:
        self._loop = loop
        self._timeouts = timeouts
        self._has_room = asyncio.Event()  # cleared while Twisted's buffers are full
        self._has_room.set()
        self.closed = False
        self.reading = True
        self.peer: Address = None
        self.host: Address = None
        self.secure = True
        self.copies_files = False  # what is encrypted has to pass through this process
        self.receiver: Receiver
        self.accepted: Any = None  # called with this transport once it is connected
        self._socket: Any = None  # Twisted's, below its TLS
        self._send: Any = None

    def renew_lane(self) -> None:
        pass

    # Called by Twisted

    def connectionMade(self) -> None:
        peer, host = self.transport.getPeer(), self.transport.getHost()
        if hasattr(peer, "port"):
            self.peer, self.host = [str(peer.host), peer.port], [str(host.host), host.port]
        self._socket = self.transport.transport
        # Twisted tells when its buffers are empty, and not that something was taken of them.
        self._send, self._socket.writeSomeData = self._socket.writeSomeData, self._send_some
        self.transport.registerProducer(self, True)
        self.accepted(self)

    def _send_some(self, data: bytes) -> Any:
        sent = self._send(data)
        if self in self._timeouts.stalled and isinstance(sent, int) and sent > 0:
            self._timeouts.stalled[self] = self._loop.time()
        return sent

    def dataReceived(self, data: bytes) -> None:
        if not self.closed:
            self.receiver.data_received(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.closed = True
        self._has_room.set()
        self._timeouts.stalled.pop(self, None)
        self._timeouts.paused.pop(self, None)
        self.receiver.connection_lost()

    def pauseProducing(self) -> None:
        self._has_room.clear()
        self._timeouts.stalled[self] = self._loop.time()

    def resumeProducing(self) -> None:
        self._has_room.set()
        self._timeouts.stalled.pop(self, None)
        if not self.closed:
            self.receiver.flushed()

    def stopProducing(self) -> None:
        pass

    # The interface

    @property
    def pending(self) -> bool:
        return not self._has_room.is_set()

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.transport.write(data)

    async def drain(self) -> None:
        while self.pending and not self.closed:
            await self._has_room.wait()

    async def send_file(self, fileno: int, offset: int, count: int, progress: Progress) -> None:
        raise RuntimeError("TLS can't send a file: send its bytes.")

    def pause_reading(self) -> None:
        if self.reading and not self.closed:
            self.reading = False
            self.transport.pauseProducing()
            self._timeouts.paused[self] = None

    def resume_reading(self) -> None:
        if not self.reading and not self.closed:
            self.reading = True
            self.transport.resumeProducing()
            self._timeouts.paused.pop(self, None)

    def close(self, *, linger: bool = False) -> None:
        if not self.closed:
            self.resume_reading()  # of a peer that lingers
            self.closed = True
            # Twisted keeps the connection until its producer is done.
            self.transport.unregisterProducer()
            self._has_room.set()
            self._timeouts.stalled[self] = self._loop.time()  # until it is lost
            self.transport.loseConnection()
            # Twisted would wait for the peer to say by TLS that it closes too.
            self._loop.call_later(CLOSING_GRACE if linger else 0, self._socket.loseConnection)

    def abort(self) -> None:
        self.closed = True
        self._has_room.set()
        if self.transport.connected:
            self.transport.abortConnection()
        self._timeouts.stalled.pop(self, None)
        self._timeouts.paused.pop(self, None)

    def fileno(self) -> int:
        """Return the file descriptor, to be polled while it is not read."""
        return int(self._socket.fileno())

    def peer_left(self, reset: bool) -> None:
        self.receiver.peer_left(reset)
