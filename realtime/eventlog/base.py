"""What an event log has to do. Everything else recovers from it, so it may lose nothing."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from django.core.checks import CheckMessage

from ..events.event import Event, RepeatedEvent
from ..events.position import Position


class NewEvent(NamedTuple):
    """An event that is not stored yet."""

    topic: str
    type: str
    data: str  # JSON text
    meta: str | None = None  # JSON text of an object, set by the server, such as the sender
    key: str | None = None  # of an idempotent publisher
    publisher: str = ""  # whose key it is

    def to_event(self, epoch: str = "", offset: int = 0) -> Event:
        """Return the event as it is with this place in the log; without one it is ephemeral."""
        return Event(self.topic, self.type, self.data, epoch, offset, self.meta)

    def to_repeated(self, epoch: str, offset: int) -> RepeatedEvent:
        """Return the event with the place in the log that it has had since it first came."""
        return RepeatedEvent(self.topic, self.type, self.data, epoch, offset, self.meta)


class Page(NamedTuple):
    """Some events of a topic, and where a reader stands that has read them."""

    events: list[Event]
    position: Position


class Changes(NamedTuple):
    """Where topics stand that have new events; None where all may have. `mark` is for the next."""

    heads: Mapping[str, Position] | None
    mark: object


class EventLog(ABC):
    """Topics with an epoch and a head; events with consecutive offsets."""

    supports_transactions: ClassVar[bool]
    """Whether what is appended commits and rolls back with the site's transaction."""

    waits_for_commit: ClassVar[bool] = True
    """Whether nothing that is appended in a transaction can be read before its commit."""

    @abstractmethod
    def append(self, batch: Sequence[NewEvent]) -> list[Event]:
        """Store all events of the batch, or none; return them with their offsets.

        Of an event whose key the topic knows, nothing is stored: what is returned is repeated, and
        has the first one's place. Raises `KeyReused` where the first had another type or data.
        Called in the publisher's thread; in a database transaction, where the log supports it, the
        events commit and roll back with it. A log that only waits for the commit returns them as
        pending, without their places. Offsets of a topic become visible in order, without gaps.
        """

    @abstractmethod
    def on_commit(self, callback: Callable[[], object]) -> None:
        """Call `callback` once what was appended in this thread can be read by others."""

    @abstractmethod
    async def aappend(
        self, batch: Sequence[NewEvent], then: Callable[[Sequence[Event]], object] | None = None
    ) -> list[Event]:
        """Store events outside of any transaction, as `append`; they are durable when this returns.

        `then` is called in the event loop with the events once they are durable, even if the caller
        has been cancelled meanwhile.
        """

    async def check_writable(self) -> None:
        """Raise what keeps an event from being stored now; it takes the way of an append."""
        await self.heads(["realtime.ready"])  # without a name nothing would be asked

    @abstractmethod
    async def heads(self, topics: Sequence[str]) -> Mapping[str, Position]:
        """Return the newest position of each topic; topics without any event are left out."""

    def parts_of(self, topics: Sequence[str]) -> list[Sequence[str]]:
        """Return the topics in parts: `heads` of one may work where that of another fails."""
        return [topics]

    async def changes(self, mark: Any, limit: int) -> Changes:
        """Return the topics in which events were stored since `mark`, with their newest.

        `mark` is what the call before has returned, None for the first. Some may be named twice,
        and those be missing whose transaction was long under way. No topics are returned, but None,
        at first, for more than `limit` events, and by a log that can't tell: then all are asked for
        by `heads`.
        """
        return Changes(None, None)

    @abstractmethod
    async def read(self, topic: str, after: Position, limit: int) -> Page:
        """Return up to `limit` events, or `LOG_PAGE_BYTES`, that follow `after`; none at the head.

        Raises `HistoryGone` when `after` is of another epoch, lies ahead of the head, or the
        event that follows it is no longer kept. `OLDEST` reads from wherever history begins.
        """

    @abstractmethod
    def prune(self) -> Mapping[str, int]:
        """Apply retention; return the number of events dropped, by topic."""

    def prune_in_turn(self, interval: float) -> Mapping[str, int]:
        """Apply retention, unless another process has within the last `interval` seconds."""
        return self.prune()

    def start_epoch(self, topics: Sequence[str] | None = None) -> int:
        """Begin a new epoch of these topics, or of all; return how many there were.

        For a log that has lost events it had, by a restored backup: a position from before could
        stand for another event by now. A reader that has one gets a `reset`.
        """
        raise NotImplementedError(f"{type(self).__name__} can't begin a new epoch.")

    def note_stored(self, events: Iterable[Event]) -> None:  # noqa: B027 - most have nothing to do
        """Take note of events that others have stored: a log that has less has lost some.

        Without it only what this process itself has appended and read is known to have been there.
        """

    async def end_epoch(self, event: Event) -> None:  # noqa: B027 - nor here
        """Begin a new epoch of the topic in which `event` was stored, and another one is now.

        Once, however many processes find that out. A log that can't lose events has none to end.
        """

    async def move_outbox(self) -> AsyncIterator[list[Event]]:
        """Store what committed transactions have left behind, and yield it, some at a time.

        Of a log that has an outbox in the database. Called by every process that listens, each
        `HEAD_CHECK_SECONDS`.
        """
        return
        yield  # makes this an async generator

    def check(self) -> list[CheckMessage]:
        """Return what is wrong with the log's configuration, for Django's system checks."""
        return []
