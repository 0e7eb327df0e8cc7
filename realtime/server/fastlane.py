"""The fast lane of a socket: bytes straight to it, while nothing else is pending.

A broadcast encodes an event once and writes it to each reader: a write is all that a delivery
costs. Where the socket takes nothing, the ordinary awaited `send` serves the reader until it has
caught up. Lanes are written to as a group: then no line of Python is between two system calls.
"""

from collections.abc import Callable
from itertools import repeat
from operator import call
from typing import ClassVar, Final, Protocol

from realtime.server.access_log import logger
from realtime.server.extensions import Framing

Send = Callable[[bytes], int]
REFUSED: Final = -1
CORKED_GROUPS: Final = 8  # most that a lane is in that is corked: more cost what a call does


def _refuse(data: bytes) -> int:
    return REFUSED


def _no_lane() -> None:
    return None


_pretend_sent: Final[Send] = len  # for an index that nothing has any more


class _Transport(Protocol):
    """What a lane needs of its transport."""

    @property
    def send(self) -> Send:
        """Return what sends bytes now, and returns how many the socket has taken."""

    @property
    def pending(self) -> bool:
        """Return whether something written has not gone out yet."""

    def keep(self, data: bytes, sent: int) -> None:
        """Queue what the socket did not take of data."""

    def abort(self) -> None:
        """Close the connection now."""


class _Closed:
    """Stand for the transport of a lane that is shut, which keeps no other."""

    pending = False
    send = staticmethod(_refuse)

    def keep(self, data: bytes, sent: int) -> None:
        pass

    def abort(self) -> None:
        pass


_CLOSED: Final = _Closed()


class SocketGroup:
    """Write the same bytes to many lanes, each known by the index that `add` has given it.

    What is called for an index stands in a list of its own, so that `map` goes from one system
    call to the next, and the lanes themselves, thousands of objects, are not fetched from memory.
    """

    __slots__ = ("_lanes", "_sends")

    def __init__(self) -> None:
        self._lanes: list[SocketLane | None] = []
        self._sends: list[Send] = []

    def add(self, lane: "SocketLane") -> int:
        """Write to the lane from now on; return its index, which is the next one."""
        index = lane.groups[self] = len(self._lanes)
        self._lanes.append(lane)
        self._sends.append(lane.send)
        return index

    def remove(self, index: int) -> None:
        """Write to the lane of this index no more. The others keep theirs."""
        lane, self._lanes[index], self._sends[index] = self._lanes[index], None, _pretend_sent
        if lane is not None:
            del lane.groups[self]

    def compact(self) -> list[int]:
        """Give new indexes to the lanes, without holes; return the old ones in their order."""
        left = [(index, lane) for index, lane in enumerate(self._lanes) if lane is not None]
        self._lanes, self._sends = [], []
        for _, lane in left:
            self.add(lane)
        return [index for index, _ in left]

    def renew(self, index: int, send: Send) -> None:
        """Call `send` for the lane of this index from now on."""
        self._sends[index] = send

    def write(self, data: bytes, start: int, stop: int) -> list[int]:
        """Write data to the lanes from index `start` to before `stop`, as `try_write` does.

        Return the indexes of those that took nothing. Raise nothing, whatever fails: the others
        have to get it too.
        """
        size, index, refused = len(data), start, list[int]()
        sends = map(call, self._sends[start:stop], repeat(data))
        while True:
            try:
                for sent in sends:
                    if sent != size and not self._took_part(index, data, sent):
                        refused.append(index)
                    index += 1
                return refused
            except (BlockingIOError, InterruptedError):
                pass
            except Exception as error:
                self._failed(index, error)
            refused.append(index)  # and on with the next
            index += 1

    def _failed(self, index: int, error: Exception) -> None:
        if not isinstance(error, OSError):
            logger.error("A connection can't be written to", exc_info=error)
        lane = self._lanes[index]
        if lane is not None:
            try:
                lane.transport.abort()
            except Exception:
                logger.exception("A connection can't be aborted")

    def _took_part(self, index: int, data: bytes, sent: int) -> bool:
        lane = self._lanes[index]
        if sent == REFUSED or lane is None:
            return False
        lane.transport.keep(data, sent)
        return True


class SocketLane:
    """Offer one response, or one WebSocket, as a `FastLane`."""

    __slots__ = ("_armed", "_corked", "framing", "groups", "send", "transport")
    kind: ClassVar = SocketGroup

    def __init__(self, transport: _Transport) -> None:
        self.transport: _Transport = transport
        self.framing: Framing | None = None
        self.send: Send = _refuse
        self.groups: dict[SocketGroup, int] = {}  # a WebSocket may read several topics
        self._armed: bytes | None = None
        self._corked: list[bytes] | None = None

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _no_lane, ()  # in another process, as of a scope that Daphne's test harness pickles

    def arm(self, body: bytes) -> None:
        """Declare that the next `http.response.body` carries this very object.

        If it arrives as it is, nothing between application and server rewrites the stream, and
        the lane opens after it. Anything else closes the lane for the rest of the response.
        """
        self._armed = body

    def disarm(self, body: bytes) -> bool:
        """Return whether the lane may open after this body."""
        armed, self._armed = self._armed, None
        return armed is body

    @property
    def is_armed(self) -> bool:
        """Return whether the next body decides about the lane."""
        return self._armed is not None

    def open(self, framing: Framing) -> None:
        """Take bytes from now on, whenever nothing else is pending."""
        self.framing = framing
        self.resume()

    def pause(self) -> None:
        """Take nothing: something is pending."""
        self._renew(_refuse)

    def resume(self) -> None:
        """Take bytes again, if the lane is open and nothing is pending."""
        if self.framing is not None and not self.transport.pending:
            self._renew(self.transport.send)

    def shut(self) -> None:
        """Take nothing any more."""
        self.framing = None
        self._renew(_refuse)
        self.transport = _CLOSED

    def _renew(self, send: Send) -> None:
        self.send = send
        for group, index in self.groups.items():
            group.renew(index, send)

    def cork(self) -> None:
        """Keep what is taken from now on, until `uncork` writes it at once.

        Await nothing until then: what is sent meanwhile would overtake it. A lane in many groups is
        not corked, since each has to be told. Raises RuntimeError for one that is corked.
        """
        if self._corked is not None:
            raise RuntimeError("The lane is corked already: call uncork() first.")
        if self.send is not _refuse and len(self.groups) <= CORKED_GROUPS:
            self._corked = []
            self._renew(self._keep)

    def _keep(self, data: bytes) -> int:
        assert self._corked is not None
        self._corked.append(data)
        return len(data)

    def uncork(self) -> None:
        """Write what was kept, with one system call; queue what the socket does not take."""
        corked, self._corked = self._corked, None
        if corked is None:
            return
        self.resume()  # leaves it paused where bytes are pending, or it was shut meanwhile
        try:
            data = b"".join(corked)
            if data and not self.try_write(data):
                self.transport.keep(data, 0)  # a lane that was shut drops it
        except BaseException:  # as MemoryError: it was said to be taken, and the stream has a gap
            self.transport.abort()
            raise

    def try_write(self, data: bytes) -> bool:
        """Write data now, or take nothing of it and return False.

        True: each byte was sent, or is queued, once. Never raises for a peer that has left.
        """
        try:
            sent = self.send(data)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self.transport.abort()
            return False
        if sent == REFUSED:
            return False
        if sent != len(data):
            self.transport.keep(data, sent)
        return True
