"""The fast lane: bytes that are encoded already, straight to a socket with nothing pending.

A broadcast encodes an event once and writes it to each subscriber: a write is all that a delivery
costs. A subscriber whose socket is not ready takes nothing and is served by the ordinary awaited
`send` until it has caught up. Lanes of plain sockets can be written to as a group: then no line of
Python is between two system calls.
"""

import socket
from collections.abc import Callable
from itertools import repeat
from operator import call
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from realtime.server.access_log import logger

if TYPE_CHECKING:
    from realtime.server.transport import SocketTransport, TwistedTransport

Framing = Literal["websocket", "chunked", "identity"]
Send = Callable[[bytes], int]
REFUSED: Final = -1


class Lane:
    """`scope["extensions"]["realtime.lane"]["lane"]`.

    `framing` says what a payload must be: `websocket` (whole frames), `chunked` (in HTTP/1.1's
    chunked coding), `identity` (as it is), or None while the lane is closed.
    """

    __slots__ = ("_armed", "framing", "ready")
    group_type: "ClassVar[type[SocketGroup] | None]" = None

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

    def open(self, framing: Framing, *, ready: bool) -> None:
        """Take payloads from now on; not `ready` while something else is pending."""
        self.framing = framing
        self._set_ready(ready)

    def pause(self) -> None:
        """Something is pending."""
        self._set_ready(False)

    def resume(self) -> None:
        """Nothing is pending any more."""
        self._set_ready(self.framing is not None)

    def shut(self) -> None:
        self.framing = None
        self._set_ready(False)

    def _set_ready(self, ready: bool) -> None:
        self.ready = ready

    def write(self, payload: bytes) -> bool:
        """Send the payload now, or take nothing and return False.

        True: every byte was sent or is queued, once. Never raises for a peer that is gone.
        """
        raise NotImplementedError


class SocketLane(Lane):
    """The lane of a plain socket."""

    __slots__ = ("groups", "send", "transport")

    def __init__(self, transport: "SocketTransport", sock: socket.socket) -> None:
        super().__init__()
        self.transport = transport
        self.send: Send = sock.send
        self.groups: dict[SocketGroup, int] = {}  # its slots: a WebSocket may read several topics

    def _set_ready(self, ready: bool) -> None:
        self.ready = ready
        for group, slot in self.groups.items():
            group.renew(slot, self)

    def write(self, payload: bytes) -> bool:
        if not self.ready:
            return False
        try:
            sent = self.send(payload)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self.transport.abort()
            return False
        if sent != len(payload):
            self.transport.keep(payload, sent)
        return True


class SocketGroup:
    """Lanes of plain sockets that are sent the same payloads. Each keeps its slot until it leaves.

    What is called for a slot stands in a list of its own, so that `map` goes from one system call
    to the next, and the lanes themselves, thousands of objects, are not fetched from memory.
    """

    __slots__ = ("_sends", "writers")

    def __init__(self) -> None:
        self.writers: list[SocketLane | None] = []
        self._sends: list[Send] = []

    def add(self, lane: SocketLane) -> None:
        """In the next slot."""
        slot = lane.groups[self] = len(self.writers)
        self.writers.append(lane)
        self._sends.append(_refuse)
        self.renew(slot, lane)

    def remove(self, slot: int) -> None:
        """The slot stays, and is empty."""
        lane, self.writers[slot], self._sends[slot] = self.writers[slot], None, _skip
        if lane is not None:
            del lane.groups[self]

    def renew(self, slot: int, lane: SocketLane) -> None:
        """The lane in this slot has become ready, or is no longer."""
        self._sends[slot] = lane.send if lane.ready else _refuse

    def write(self, payload: bytes, start: int, stop: int) -> list[int]:
        """Send the payload to the lanes in the slots from `start` to before `stop`, as `Lane.write`
        does; the slots of those that took nothing."""
        size, slot, refused = len(payload), start, list[int]()
        sends = map(call, self._sends[start:stop], repeat(payload))
        while True:
            try:
                for sent in sends:
                    if sent != size and not self._took_part(slot, payload, sent):
                        refused.append(slot)
                    slot += 1
                return refused
            except (BlockingIOError, InterruptedError):
                pass
            except Exception as error:  # one broken connection must not keep it from the others
                self._failed(slot, error)
            refused.append(slot)  # and on with the next
            slot += 1

    def _failed(self, slot: int, error: Exception) -> None:
        if not isinstance(error, OSError):
            logger.error("A connection can't be written to", exc_info=error)
        lane = self.writers[slot]
        if lane is not None:
            try:
                lane.transport.abort()
            except Exception:
                logger.exception("A connection can't be aborted")

    def _took_part(self, slot: int, payload: bytes, sent: int) -> bool:
        lane = self.writers[slot]
        if sent == REFUSED or lane is None:
            return False
        lane.transport.keep(payload, sent)
        return True


def _refuse(payload: bytes) -> int:
    return REFUSED


_skip: Final[Send] = len  # as if all had been sent
SocketLane.group_type = SocketGroup


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
