"""Fan-out: one topic's events to all of its subscribers in this process.

A subscriber that stands where the topic stands, with nothing pending, is *synced*: the fan-out
writes to its lane without calling it. In a broadcast to thousands that is what counts: each object
that is touched on the way to a socket is a cache line to fetch. The others (new, slow, on another
server) are *lagging*: they are notified one by one, and sync when they have caught up. One whose
lane takes nothing lags again, from the position that it has reached.

Events that come while others are being sent go out together: one system call brings a subscriber
all that have come meanwhile, so that a process that falls behind becomes faster.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextvars import Context
from time import monotonic
from typing import Final

from ..events.event import Event, last_position, take
from ..events.position import START, Position
from ..metrics.series import Counter, Histogram
from ..server.extensions import Framing, Group
from .synced import NOTHING, Encode, Sent, Sink, Subscriber, Synced, join

logger = logging.getLogger("realtime.hub")

SLICE_SECONDS: Final = 0.002  # a broadcast that takes longer lets the loop run in between
SLICE_READERS: Final = 64  # subscribers written to between two checks of the clock
WRITE_EVENTS: Final = 64  # most that are written to a subscriber at once
WRITE_BYTES: Final = 16_384  # and their data's bytes: what a socket has room for from the start

DELIVERIES: Final = Counter(
    "realtime_deliveries_total",
    "Events brought to readers, counted for each: written by the fan-out (lane), or read by the "
    "reader from the newest in memory (awaited) or the log.",
    path=("lane", "awaited", "log"),
)
SECONDS: Final = Histogram(
    "realtime_delivery_seconds",
    "How long it took from the announcement until events were written to all readers that keep up.",
)


class Fanout:
    """Write a topic's events to its synced subscribers, and notify the lagging ones."""

    def __init__(self, topic: str, lagging_topics: set[str] | None = None) -> None:
        self.topic = topic
        self._lagging_topics = set() if lagging_topics is None else lagging_topics
        self._lagging: dict[Subscriber, None] = {}  # a dict, for its order
        self._places: dict[Subscriber, tuple[Synced, int, Sent]] = {}  # of the synced ones
        self._groups: dict[tuple[Encode, Framing, type[Group]], Synced] = {}
        self._sent = START  # the position of all synced subscribers
        self._sending: Position | None = None  # and of those that have the events being sent
        self._pending: dict[Subscriber, tuple[Sink, Position]] = {}  # lagging, and to be synced
        self._already_sent: set[Subscriber] = set()  # unsynced since, or notified
        self._unsent: deque[Event] | tuple[()] = ()  # an empty deque takes 760 bytes
        self._run: Iterator[None] | None = None
        self._later: asyncio.Handle | None = None

    def __len__(self) -> int:
        return len(self._lagging) + len(self._places)

    def add(self, subscriber: Subscriber) -> None:
        """Notify `subscriber` from now on."""
        self._lagging[subscriber] = None
        self._lagging_topics.add(self.topic)

    def remove(self, subscriber: Subscriber) -> None:
        """Neither write to `subscriber` nor notify it any more."""
        self.unsync(subscriber)
        self._notify_no_more(subscriber)

    def _notify_no_more(self, subscriber: Subscriber) -> None:
        self._lagging.pop(subscriber, None)
        if not self._lagging:
            self._lagging_topics.discard(self.topic)

    def behind(self, position: Position) -> int:
        """Return how many of the subscribers that are notified are not there yet."""
        return sum(each.position != position for each in self._lagging)

    # -- synced or lagging

    def sync(self, subscriber: Subscriber, sink: Sink, position: Position) -> bool:
        """Write to `sink` from now on: `subscriber` stands at `position`, with nothing pending.

        While events are being sent, or the log was read ahead of them, this waits until they have
        been sent up to `position`; `unsynced` is called if they go past it. Return False where
        it can't be done: the lane is closed, or the topic has other events by now.
        """
        framing, sent = sink.lane.framing, self._sent
        self._pending.pop(subscriber, None)
        if subscriber not in self._lagging:
            return subscriber in self._places
        if framing is None:
            return False
        if self._sending is not None or (
            position.epoch == sent.epoch and position.offset > sent.offset
        ):
            self._pending[subscriber] = sink, position
            return True
        if position != sent:
            return False
        key = sink.encode, framing, sink.lane.kind
        synced = self._groups.get(key)
        if synced is None:
            synced = self._groups[key] = Synced(*key)
        self._notify_no_more(subscriber)
        self._places[subscriber] = synced, synced.lanes.add(sink.lane), synced.sent
        synced.subscribers.append(subscriber)
        return True

    def unsync(self, subscriber: Subscriber) -> Position | None:
        """Stop writing to `subscriber`; return the position it has reached, None if not synced."""
        position = self.position_of(subscriber)
        if position is None:
            self._pending.pop(subscriber, None)
            return None
        if self._is_sent(subscriber):
            self._already_sent.add(subscriber)
        synced, index, before = self._places[subscriber]
        subscriber.note_sent(*synced.sent_to(index, before))
        self.add(subscriber)  # before its place is gone: what fails here can be done again
        synced.lanes.remove(index)
        synced.subscribers[index] = None
        synced.removed += 1
        synced.skipped += index >= synced.sent_until
        del self._places[subscriber]
        return position

    def position_of(self, subscriber: Subscriber) -> Position | None:
        """Return the position of the last event a synced subscriber has; None if not synced."""
        if subscriber not in self._places:
            return None
        return self._sending if self._is_sent(subscriber) else self._sent

    def _is_sent(self, subscriber: Subscriber) -> bool:
        """Return whether a synced subscriber has the events that are being sent."""
        synced, index, _ = self._places[subscriber]
        return self._sending is not None and index < synced.sent_until

    def restart(self, position: Position) -> None:
        """Have all subscribers read on: the topic stands at `position` now."""
        lagging = list(self._lagging)
        self._unsync_all()
        self._sent = position
        for subscriber in lagging:
            self._tell(subscriber, ())

    def _unsync_all(self) -> None:
        for subscriber in list(self._places):
            self._tell(subscriber, (), self.unsync(subscriber))

    # -- sending

    def send(self, events: Sequence[Event]) -> None:
        """Bring events to all subscribers, after those that are still being sent."""
        if self._unsent:
            self._unsent.extend(events)
        else:
            self._unsent = deque(events)
        if self._run is None:
            self._run = self._send_all()
            self._continue()

    def close(self) -> None:
        """Stop; there are no subscribers any more."""
        if self._later is not None:
            self._later.cancel()

    def _continue(self) -> None:
        """Send for one slice of time, and the rest after the loop has had its turn."""
        assert self._run is not None
        try:
            for _ in self._run:
                # In an empty context: nothing of the publisher's request is kept alive.
                later = asyncio.get_running_loop().call_soon
                self._later = later(self._continue, context=Context())
                return
        except Exception:
            self._run = self._later = None  # before what may fail too
            self._give_up()
            logger.exception("Can't write events of %s; their readers read the log", self.topic)
            return
        self._run = self._later = None

    def _give_up(self) -> None:
        """Have all subscribers read on: some may not have what was being sent."""
        self._sending = self._sending or self._sent  # until it is done: see `_send_all`
        ended = last_position(self._unsent, self._sending)
        lagging = list(self._lagging)
        self._unsync_all()
        self._groups.clear()  # what they were being sent is not known
        self._pending.clear()
        self._already_sent.clear()
        self._sent, self._sending, self._unsent = ended, None, ()
        for subscriber in lagging:
            self._tell(subscriber, ())

    def _send_all(self) -> Iterator[None]:
        deadline = (began := monotonic()) + SLICE_SECONDS
        if self._sending is not None:
            self._give_up()  # what failed before, and with it what has come since
        while self._unsent:
            for _ in self._send(self._next()):
                if monotonic() > deadline:
                    yield
                    deadline = monotonic() + SLICE_SECONDS
        self._unsent = ()
        SECONDS.observe(monotonic() - began)

    def _next(self) -> list[Event]:
        """Take the events of one write off `_unsent`: there is no gap between them."""
        assert self._unsent
        if len(self._unsent) == 1:  # as a rule
            return [self._unsent.popleft()]
        return [self._unsent.popleft() for _ in take(self._in_a_row(), WRITE_EVENTS, WRITE_BYTES)]

    def _in_a_row(self) -> Iterator[Event]:
        """Yield the unsent events up to a gap; after a gap, one event by itself."""
        position = self._sent
        for number, event in enumerate(self._unsent):
            is_next = event.follows(position)
            if is_next or not number:
                yield event
            if not is_next:
                return
            position = last_position([event], position)

    def _send(self, events: list[Event]) -> Iterator[None]:
        """Send events to all; yield after every `SLICE_READERS`."""
        if not events[0].follows(self._sent):
            self._unsync_all()  # something is missing: each reads it from the log
        position = last_position(events, self._sent)
        for synced in self._groups.values():
            self._compact(synced)
            synced.sent_until = 0
        self._sending = position
        for synced in self._groups.values():  # none is added while `_sending` is set
            yield from self._write(synced, events)
        # A copy made now: those are in it that were unsynced before they had the events.
        for number, subscriber in enumerate(list(self._lagging), 1):
            if subscriber in self._lagging and subscriber not in self._already_sent:
                self._tell(subscriber, events)
            if not number % SLICE_READERS:
                yield
        self._sent, self._sending = position, None
        self._already_sent.clear()
        pending, self._pending = self._pending, {}
        for subscriber, (sink, reached) in pending.items():
            if not self.sync(subscriber, sink, reached):
                self._tell(subscriber, (), reached)

    def _write(self, synced: Synced, events: list[Event]) -> Iterator[None]:
        data = join(events, synced.encode, synced.framing)
        size = len(synced.subscribers)
        holes, synced.skipped = synced.removed, 0
        synced.sending = Sent(len(events), len(data))
        synced.sent = Sent(synced.sent.events + len(events), synced.sent.size + len(data))
        for start in range(0, size, SLICE_READERS):
            stop = min(start + SLICE_READERS, size)
            for index in synced.lanes.write(data, start, stop):
                self._refused(synced.subscribers[index], events)
            synced.sent_until = stop
            yield
        DELIVERIES.add(len(events) * (size - holes - synced.skipped), "lane")
        synced.sending = NOTHING

    def _refused(self, subscriber: Subscriber | None, events: list[Event]) -> None:
        """Have a subscriber whose lane has taken nothing read on from before the events."""
        if subscriber is not None:
            position = self.unsync(subscriber)
            self._already_sent.add(subscriber)
            self._tell(subscriber, [event for event in events if not event.offset], position)

    def _tell(
        self, subscriber: Subscriber, events: Sequence[Event], position: Position | None = None
    ) -> None:
        try:
            if position is None:
                subscriber.notify(events)
            else:
                subscriber.unsynced(position, events)
        except Exception:
            # One that is broken must not keep the events from all that come after it.
            logger.exception("A reader of %s failed", self.topic)

    def _compact(self, synced: Synced) -> None:
        """Renumber a group's subscribers once more than half of its indexes have none."""
        if synced.removed * 2 <= len(synced.subscribers):
            return
        before, synced.subscribers, synced.removed = synced.subscribers, [], 0
        for index, old in enumerate(synced.lanes.compact()):
            subscriber = before[old]
            assert subscriber is not None
            synced.subscribers.append(subscriber)
            self._places[subscriber] = synced, index, self._places[subscriber][2]
