"""The fast lane: bytes that are encoded already, straight to a socket with nothing pending.

A broadcast encodes an event once and calls `write` for each subscriber, so `write` is all that a
delivery costs: one check, one system call. A subscriber whose socket is not ready says False and
is served by the ordinary awaited `send` until it has caught up.
"""

import socket
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from realtime.server.transport import SocketTransport, TwistedTransport

Framing = Literal["websocket", "chunked", "identity"]


class Lane:
    """`scope["extensions"]["realtime.lane"]["lane"]`.

    `framing` says what a payload must be: `websocket` (whole frames), `chunked` (in HTTP/1.1's
    chunked coding), `identity` (as it is), or None while the lane is closed.
    """

    __slots__ = ("_armed", "framing", "ready")

    def __init__(self) -> None:
        self.framing: Framing | None = None
        self.ready = False
        self._armed: bytes | None = None

    def arm(self, body: bytes) -> None:
        """Declare that the next `http.response.body` carries this very object.

        If it arrives as it is, nothing between application and server rewrites the stream, and
        the lane opens behind it. Anything else closes the lane for the rest of the response.
        """
        self._armed = body

    def armed_with(self, body: bytes) -> bool:
        """Whether the lane may open behind this body. Disarms."""
        armed, self._armed = self._armed, None
        return armed is not None and armed is body

    @property
    def is_armed(self) -> bool:
        return self._armed is not None

    def open(self, framing: Framing) -> None:
        self.framing = framing
        self.ready = True

    def shut(self) -> None:
        self.framing = None
        self.ready = False

    def write(self, payload: bytes) -> bool:
        """Send the payload now, or take nothing and return False.

        True: every byte was sent or is queued, once. Never raises for a peer that is gone.
        """
        raise NotImplementedError


class SocketLane(Lane):
    """The lane of a plain socket."""

    __slots__ = ("_send", "_transport")

    def __init__(self, transport: "SocketTransport", sock: socket.socket) -> None:
        super().__init__()
        self._transport = transport
        self._send = sock.send

    def write(self, payload: bytes) -> bool:
        if not self.ready:
            return False
        try:
            sent = self._send(payload)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self._transport.abort()
            return False
        if sent != len(payload):
            self._transport.keep(payload, sent)
        return True


class TwistedLane(Lane):
    """The lane of a TLS connection: Twisted's transport, as long as it holds nothing back."""

    __slots__ = ("_transport",)

    def __init__(self, transport: "TwistedTransport") -> None:
        super().__init__()
        self._transport: Any = transport

    def write(self, payload: bytes) -> bool:
        if not self.ready or self._transport.buffered():
            return False
        self._transport.write(payload)
        return True
