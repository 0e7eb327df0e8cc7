"""The bytes of a connection with TLS, which Twisted encrypts."""

import asyncio
from typing import Any

from twisted.internet.protocol import Protocol

from realtime.server.receiver import Receiver
from realtime.server.sendfile import Progress
from realtime.server.transport import Address

TLS_FLUSH = 300.0
"""Seconds in which a TLS peer may take what is pending when its connection is closed."""


class TwistedTransport(Protocol):
    """Write and read as `SocketTransport` does, over a Twisted transport.

    It is the protocol at the top of Twisted's stack and its push producer: Twisted says when its
    buffers are full by pausing it. It has no fast lane: what of its buffers is empty is not told.
    """

    lane = None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
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
            self._has_room.set()
        if self._closing is not None:
            self._closing.cancel()
        self.receiver.connection_lost()

    def pauseProducing(self) -> None:
        self._has_room.clear()

    def resumeProducing(self) -> None:
        self._has_room.set()
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
            self._has_room.set()
            self.transport.loseConnection()
            self._closing = self._loop.call_later(TLS_FLUSH, self.transport.abortConnection)

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self._has_room.set()
            self.transport.abortConnection()
