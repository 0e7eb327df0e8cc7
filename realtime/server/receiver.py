"""What a transport talks to: a connection of HTTP or WebSocket, and in the end nobody."""

from typing import Final, Protocol


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


class _Nobody:
    """Receive nothing: what a transport talks to when its connection is over.

    A connection that referred to its transport, and was referred to by it, would be left to the
    garbage collector, which stops the process for 100 ms a second where many come and go.
    """

    def data_received(self, data: bytes) -> None:
        pass

    def eof_received(self) -> None:
        pass

    def peer_left(self, reset: bool) -> None:
        pass

    def flushed(self) -> None:
        pass

    def connection_lost(self) -> None:
        pass


NOBODY: Final = _Nobody()
