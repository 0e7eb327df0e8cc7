"""One topic of a subscription: where it stands, and what the topic's fan-out tells it."""

from collections.abc import Awaitable, Sequence
from typing import Final, NamedTuple, Protocol

from ..conf import settings
from ..conf.topics import topic_settings
from ..eventlog import get_event_log
from ..eventlog.base import Page
from ..events.event import Event, last_position
from ..events.position import OLDEST, START, Position
from ..exceptions import HistoryGone
from ..metrics.series import Counter
from .fanout import DELIVERIES
from .feed import Feed
from .hub import Hub, get_hub
from .synced import Sink

RESUMES: Final = Counter(
    "realtime_resumes_total",
    "Readers that came back with a position: whether what followed it was kept.",
    recovered=("true", "false"),
)
RESETS: Final = Counter(
    "realtime_resets_total", "Readers that were told while they read that history is gone."
)


class Reset(NamedTuple):
    """History is gone: what was read of `topic` is stale; what follows comes after `position`."""

    topic: str
    position: Position


class Started(NamedTuple):
    """Where reading begins. `recovered` is False where the asked position is out of reach."""

    position: Position
    recovered: bool


class Reader(Protocol):
    """What several topics are read for."""

    sink: Sink | None
    is_waiting: bool  # with nothing to hand out: events may be written past it
    sent_events: int
    sent_bytes: int  # by the fast lane

    def wake(self, subscriber: "TopicSubscriber") -> None:
        """Read what is new of this topic."""

    def keep_ephemeral(self, event: Event) -> None:
        """Hand out the event, which no reading will find."""


class TopicSubscriber:
    """Read one topic for a subscription; it is what the topic's fan-out calls."""

    __slots__ = ("_first_page", "_position", "feed", "hub", "is_placed", "reader", "topic")

    def __init__(self, reader: Reader, topic: str) -> None:
        self.reader = reader
        self.topic = topic
        self.hub: Hub | None = None
        self.feed: Feed | None = None
        self.is_placed = False  # until then there is no position to read from
        self._position = START  # while it is synced (see `fanout`), the fan-out knows it instead
        self._first_page: Page | None = None

    async def attach(self) -> None:
        """Have the process's hub serve this topic."""
        hub = get_hub()
        self.feed = await hub.attach(self.topic, self)
        self.hub = hub

    def detach(self) -> None:
        """Read no more; a broadcast that is being sent passes over it too."""
        self.is_placed = False
        if self.hub is not None and self.feed is not None:
            self.hub.detach(self.feed, self)
            self.hub = None

    async def find_start(self, after: Position | None, now: Position | None = None) -> Started:
        """Stand at `after`, if what follows it is kept, or else where the topic stands now.

        Without a position stand at `now`, by default where the topic stands; where it has `STATE`,
        before the newest event there, if that is kept.
        """
        assert self.feed is not None
        starts = self._live_starts(now or self.feed.position) if after is None else [after]
        for start in starts:
            if await self._can_start(start):
                self._position = start
                if after is not None:
                    RESUMES.inc("true")
                return Started(start, True)
        if after is not None:
            RESUMES.inc("false")
        self._position = self.feed.position
        return Started(self._position, False)

    @property
    def position(self) -> Position:
        """Return the position of the last event that was handed out."""
        synced = None if self.feed is None else self.feed.fanout.position_of(self)
        return synced or self._position

    def notify(self, events: Sequence[Event]) -> None:
        """Write new events at once where nothing stands before them; else have them read."""
        if not self.is_placed:
            return
        here, reader = self._position, self.reader
        # The log may have been read ahead of the broadcast, which is perhaps as far now.
        fresh = [event for event in events if not event.is_read_at(here)]
        sink = reader.sink if reader.is_waiting else None
        if sink and fresh and _are_next(fresh, here) and (size := sink.try_write(fresh)):
            DELIVERIES.add(len(fresh), "lane")
            self.note_sent(len(fresh), size)
            self._position = last_position(fresh, here)
            self.sync()
        elif fresh or not events:
            self.unsynced(here, [event for event in fresh if not event.offset])
        elif sink:
            self.sync()

    def note_sent(self, events: int, size: int) -> None:
        """Add up what the fast lane was given."""
        self.reader.sent_events += events
        self.reader.sent_bytes += size

    def unsynced(self, position: Position, events: Sequence[Event]) -> None:
        """Read on from `position`; `events` are ephemeral ones that no reading will find."""
        self._position = position
        for event in events:
            self.reader.keep_ephemeral(event)
        self.reader.wake(self)

    def sync(self) -> None:
        """Have the fan-out write to the connection, if this stands where the topic stands."""
        sink = self.reader.sink
        if sink is not None and self.is_placed and self.feed is not None:
            self.feed.fanout.sync(self, sink, self._position)

    def unsync(self) -> None:
        """Have the fan-out notify this of new events again, and not write."""
        position = None if self.feed is None else self.feed.fanout.unsync(self)
        if position is not None:
            self._position = position

    async def read(self) -> list[Event | Reset]:
        """Return the events that come next, or none; move past them."""
        page, self._first_page = self._first_page, None
        if page is None:
            events = self._in_feed(self._position, settings.LOG_PAGE_EVENTS)
            if events is not None:
                DELIVERIES.add(len(events), "awaited")
                self._position = last_position(events, self._position)
                return list(events)
            try:
                page = await self._read_page(self._position)
            except HistoryGone:
                RESETS.inc()
                heads = await get_event_log().heads([self.topic])
                self._position = heads.get(self.topic, START)
                return [Reset(self.topic, self._position)]
        DELIVERIES.add(len(page.events), "log")
        self._position = page.position
        return list(page.events)

    def _live_starts(self, now: Position) -> list[Position]:
        if not now.offset or not topic_settings(self.topic).is_state:
            return [now]
        return [Position(now.epoch, now.offset - 1), now]

    async def _can_start(self, position: Position) -> bool:
        """Return whether what follows is kept; where it is not in memory, read the first page."""
        if position == OLDEST or self._in_feed(position, 1) is not None:
            return True
        try:
            self._first_page = await self._read_page(position)
        except HistoryGone:
            return False
        return True

    def _in_feed(self, position: Position, limit: int) -> list[Event] | None:
        assert self.feed is not None
        return self.feed.after(position, limit)

    def _read_page(self, position: Position) -> Awaitable[Page]:
        assert self.feed is not None
        return self.feed.read(position)


def _are_next(events: Sequence[Event], position: Position) -> bool:
    """Return whether nothing is missing before the events, which have no gap between them."""
    for event in events:
        if event.offset:
            return event.follows(position)
    return True
