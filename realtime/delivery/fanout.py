"""Fan-out: one topic's events to all of its readers in this process.

A reader that stands where the topic stands, with nothing pending, is *in step*: it keeps no
position of its own, and an event reaches it by one call of its lane's `write`. In a broadcast to
thousands that is what counts: each object that is looked at on the way to a socket is a cache line
to fetch. Whoever is not in step (new, slow, awaited) is asked one by one, and falls in when it has
caught up. A reader that falls out takes along the position it has reached.

Events that come while others are on their way go out together: one system call brings a reader all
that have come meanwhile, so that a process that falls behind becomes faster.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import Any, Final, Protocol, TypeAlias

from ..events.event import Event, together
from ..events.position import UNBORN

logger = logging.getLogger("realtime.hub")

SLICE_SECONDS: Final = 0.002  # a fan-out that takes longer lets the loop run in between
SLICE_READERS: Final = 64  # readers served between two looks at the clock
TOGETHER_EVENTS: Final = 64  # most that are written to a reader at once
TOGETHER_BYTES: Final = 16_384  # and their data's bytes: what a socket has room for from the start

Encoder: TypeAlias = Callable[[Event], bytes]


class Writer(Protocol):
    """Where a reader in step is written to."""

    group_type: "type[Group] | None"  # what serves many of its kind at once, if anything does

    def write(self, payload: bytes) -> bool:
        """Write to the socket at once and whole; False if nothing was taken."""


class Group(Protocol):
    """Writers that are written to together, each in its slot."""

    writers: Any  # a list of them, and of None where one has been removed

    def add(self, writer: Any) -> None:
        """In the next slot."""

    def remove(self, slot: int) -> None:
        """The slot stays, and is empty."""

    def write(self, payload: bytes, start: int, stop: int) -> list[int]:
        """`Writer.write` for those slots; those that took nothing. Whatever fails, it raises
        nothing: the event has to come to all the others."""


class OneByOne:
    """The group of writers of any kind."""

    def __init__(self) -> None:
        self.writers: list[Writer | None] = []

    def add(self, writer: Writer) -> None:
        """In the next slot."""
        self.writers.append(writer)

    def remove(self, slot: int) -> None:
        """The slot stays, and is empty."""
        self.writers[slot] = None

    def write(self, payload: bytes, start: int, stop: int) -> list[int]:
        """`Writer.write` for those slots; those that took nothing."""
        refused = []
        for slot, writer in enumerate(self.writers[start:stop], start):
            try:
                if writer is not None and not writer.write(payload):
                    refused.append(slot)
            except Exception:
                logger.exception("A reader can't be written to")
                refused.append(slot)
        return refused


class Reader(Protocol):
    """What is served: a subscriber's place in the topic."""

    def deliver(self, event: Event) -> None:
        """Take a new event, or take note that there is one."""

    def wake(self) -> None:
        """The topic has changed in some other way; look again."""


class StepReader(Reader, Protocol):
    """A reader that can be in step."""

    rank: "Rank | None"
    slot: int  # in the rank's lists
    epoch: str
    offset: int

    @property
    def writer(self) -> tuple[Writer, Encoder] | None:
        """Where and in which form it may be written to without asking; None while it may not."""


Kind: TypeAlias = tuple[Encoder, type[Group] | None]


class Rank:
    """Readers in step that are written to in one form. Those who have left leave a None behind."""

    __slots__ = ("_group_type", "empty", "encoder", "group", "readers", "served")

    def __init__(self, kind: Kind) -> None:
        self.encoder, self._group_type = kind
        self.served = 0  # slots before this one have had the event that is under way
        self._clear()

    def _clear(self) -> None:
        self.group: Group = (self._group_type or OneByOne)()
        self.readers: list[StepReader | None] = []
        self.empty = 0

    def add(self, reader: StepReader, writer: Writer) -> None:
        """At the end."""
        reader.rank, reader.slot = self, len(self.readers)
        self.readers.append(reader)
        self.group.add(writer)

    def remove(self, reader: StepReader) -> None:
        """Its slot stays: the fan-out may be between two slots."""
        self.readers[reader.slot] = None
        self.group.remove(reader.slot)
        reader.rank = None
        self.empty += 1

    def close_up(self) -> None:
        """Drop the empty slots once they are the half."""
        if self.empty * 2 <= len(self.readers):
            return
        readers, writers = self.readers, list(self.group.writers)
        for slot, writer in enumerate(writers):
            if writer is not None:
                self.group.remove(slot)
        self._clear()
        for reader, writer in zip(readers, writers, strict=True):
            if reader is not None:
                self.add(reader, writer)


class Fanout:
    """The topic's readers in this process, and the events on their way to them."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.readers: dict[Reader, None] = {}  # those not in step; a dict, for its order
        self._ranks: dict[Kind, Rank] = {}
        self._sent = (UNBORN, 0)  # the position of all who are in step
        self._under_way: tuple[str, int] | None = None  # and of those served already
        self._falling_in: dict[StepReader, None] = {}  # when the event under way has been sent
        self._had: set[Reader] = set()  # fell out behind it: they need not be asked for it
        self._outbox: deque[Event] = deque()
        self._run: Iterator[None] | None = None
        self._later: asyncio.Handle | None = None

    def __iter__(self) -> Iterator[Reader]:
        """All readers, in step or not."""
        yield from self.readers
        for rank in self._ranks.values():
            yield from (reader for reader in rank.readers if reader is not None)

    def __len__(self) -> int:
        """How many readers there are."""
        return len(self.readers) + sum(len(r.readers) - r.empty for r in self._ranks.values())

    # -- in step

    def begin(self, epoch: str, offset: int) -> None:
        """The topic stands at this position now; whoever was in step has fallen out."""
        for rank in self._ranks.values():
            for reader in rank.readers:
                if reader is not None:
                    self.fall_out(reader)
        self._sent = (epoch, offset)

    def fall_in(self, reader: StepReader) -> None:
        """Have a reader with nothing pending in step, if it stands where the topic stands."""
        found = reader.writer
        if found is None or reader.rank is not None or reader not in self.readers:
            return
        if self._under_way is not None:
            self._falling_in[reader] = None
        elif (reader.epoch, reader.offset) == self._sent:
            writer, encoder = found
            kind = encoder, writer.group_type
            if kind not in self._ranks:
                self._ranks[kind] = Rank(kind)
            del self.readers[reader]
            self._ranks[kind].add(reader, writer)

    def fall_out(self, reader: StepReader) -> None:
        """Have it asked for each event again, from the position it has reached."""
        if reader.rank is not None:
            reader.epoch, reader.offset = self.position_of(reader)
            if self._is_served(reader):
                self._had.add(reader)
            reader.rank.remove(reader)
            self.readers[reader] = None

    def position_of(self, reader: StepReader) -> tuple[str, int]:
        """Epoch and offset of the last event that a reader has had."""
        if reader.rank is None:
            return reader.epoch, reader.offset
        under_way = self._under_way if self._is_served(reader) else None
        return under_way or self._sent

    def _is_served(self, reader: StepReader) -> bool:
        """Whether a reader in step has had the event that is under way."""
        return (
            self._under_way is not None
            and reader.rank is not None
            and reader.slot < reader.rank.served
        )

    # -- sending

    def send(self, events: list[Event]) -> None:
        """Bring events to all readers, after those that are still under way."""
        self._outbox.extend(events)
        if self._run is None:
            self._run = self._send_all()
            self._continue()

    def close(self) -> None:
        """Stop; there are no readers any more."""
        if self._later is not None:
            self._later.cancel()

    def _continue(self) -> None:
        """Serve readers for one slice of time, and the rest after the loop has had its turn."""
        assert self._run is not None
        for _ in self._run:
            # In an empty context: nothing of the publisher's request is kept alive.
            later = asyncio.get_running_loop().call_soon
            self._later = later(self._continue, context=Context())
            return
        self._run = self._later = None

    def _send_all(self) -> Iterator[None]:
        now = asyncio.get_running_loop().time
        deadline = now() + SLICE_SECONDS
        while self._outbox:
            for _ in self._send(self._next()):
                if now() > deadline:
                    yield
                    deadline = now() + SLICE_SECONDS

    def _next(self) -> list[Event]:
        """What goes out together: events without a gap between them, and not too many."""
        events = together(self._in_a_row(), TOGETHER_EVENTS, TOGETHER_BYTES)
        for _ in events:
            self._outbox.popleft()
        return events

    def _in_a_row(self) -> Iterator[Event]:
        """The events to send, up to a gap; what comes behind one is by itself."""
        position = self._sent
        for number, event in enumerate(self._outbox):
            is_next = _follows(event, position)
            if is_next or not number:
                yield event
            if not is_next:
                return
            position = _after(event, position)

    def _send(self, events: list[Event]) -> Iterator[None]:
        """Send events to all; yields now and then."""
        if not _follows(events[0], self._sent):
            self.begin(*self._sent)  # something is missing: each has to see to it
        position = self._sent
        for event in events:
            position = _after(event, position)
        for rank in self._ranks.values():
            rank.close_up()
            rank.served = 0
        self._under_way = position
        for rank in list(self._ranks.values()):
            yield from self._send_to_rank(rank, events)
        # Now, so that those are among them who have just fallen out.
        for served, reader in enumerate(list(self.readers), 1):
            for event in () if reader in self._had else events:
                try:
                    reader.deliver(event)
                except Exception:
                    # One broken reader must not keep the event from all that come after it.
                    logger.exception("A reader of %s failed", self.topic)
            if not served % SLICE_READERS:
                yield
        self._sent, self._under_way = position, None
        self._had.clear()
        falling_in, self._falling_in = self._falling_in, {}
        for reader in falling_in:
            self.fall_in(reader)

    def _send_to_rank(self, rank: Rank, events: list[Event]) -> Iterator[None]:
        payload = b"".join([event.encoded(rank.encoder) for event in events])
        size = len(rank.readers)
        for start in range(0, size, SLICE_READERS):
            stop = min(start + SLICE_READERS, size)
            for slot in rank.group.write(payload, start, stop):
                reader = rank.readers[slot]
                if reader is not None:
                    self.fall_out(reader)
            rank.served = stop
            yield


def _follows(event: Event, position: tuple[str, int]) -> bool:
    """Whether nothing is missing between a position and the event."""
    return not event.offset or (event.epoch, event.offset) == (position[0], position[1] + 1)


def _after(event: Event, position: tuple[str, int]) -> tuple[str, int]:
    """Where a reader at `position` stands once it has had the event; an ephemeral one has none."""
    return (event.epoch, event.offset) if event.offset else position
