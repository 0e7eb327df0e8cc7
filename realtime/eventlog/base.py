"""What an event log has to do. Everything else recovers from it, so it may lose nothing."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..events.event import Event
from ..events.position import Position


class Page(NamedTuple):
    """Some events of a topic, and where a reader stands that has read them."""

    events: list[Event]
    position: Position


class EventLog(ABC):
    """Topics with an epoch and a head; events with consecutive offsets."""

    @abstractmethod
    def append(self, topic: str, type: str, data: str) -> Event:
        """Store an event and return it with its offset.

        Called in the publisher's thread; in a database transaction, the event commits and rolls
        back with it. Offsets of a topic become visible in order, without gaps.
        """

    @abstractmethod
    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once what was appended in this thread can be read by others."""

    @abstractmethod
    async def append_now(
        self, topic: str, type: str, data: str, then: Callable[[Event], None] | None = None
    ) -> Event:
        """Store an event outside of any transaction; it is durable when this returns.

        `then` is called in the event loop with the event once it is durable, even if whoever
        waits for this has been cancelled meanwhile.
        """

    @abstractmethod
    async def heads(self, topics: Sequence[str]) -> Mapping[str, Position]:
        """The newest position of each topic; topics without any event are left out."""

    @abstractmethod
    async def read(self, topic: str, after: Position, limit: int) -> Page:
        """Up to `limit` events, or `LOG_PAGE_BYTES`, that follow `after`; none at the head.

        Raises `HistoryGone` when `after` is of another epoch, lies ahead of the head, or the
        event that follows it is no longer kept. `OLDEST` reads from wherever history begins.
        """

    @abstractmethod
    def prune(self) -> Mapping[str, int]:
        """Apply retention; the number of events dropped, by topic."""

    def renew(self, topics: Sequence[str] | None = None) -> int:
        """Begin a new epoch of these topics, or of all; how many there were.

        For a log that has lost events it had, by a restored backup: a position from before could
        stand for another event by now. Whoever has one is told to begin anew.
        """
        raise NotImplementedError(f"{type(self).__name__} can't begin a new epoch.")
