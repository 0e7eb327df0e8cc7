"""The event: what is published, logged, announced and delivered."""

from collections.abc import Callable, Iterable, Sequence

from .position import Position


class Event:
    """One event on a topic. `offset` is 0 for an ephemeral event, which has no id."""

    __slots__ = ("_encoded", "data", "epoch", "meta", "offset", "topic", "type")

    is_repeated = False  # whether it was stored before, with the same key
    is_pending = False  # whether it is to be stored when its transaction commits

    def __init__(
        self,
        topic: str,
        type: str,
        data: str,
        epoch: str = "",
        offset: int = 0,
        meta: str | None = None,
    ) -> None:
        self.topic = topic
        self.type = type
        self.data = data  # JSON text
        self.epoch = epoch
        self.offset = offset
        self.meta = meta  # JSON text of an object, set by the server, such as the sender
        self._encoded: dict[tuple[Callable[..., bytes], Callable[..., bytes] | None], bytes] = {}

    @property
    def position(self) -> Position:
        """Return where a reader stands that has just read this event."""
        return Position(self.epoch, self.offset)

    @property
    def size(self) -> int:
        """Return how many bytes the data and the metadata have in UTF-8."""
        text = self.data if self.meta is None else self.data + self.meta
        return len(text) if text.isascii() else len(text.encode())

    @property
    def id(self) -> str | None:
        """Return the id on the wire; None for an ephemeral event."""
        return f"{self.epoch}-{self.offset}" if self.offset else None  # as `str(self.position)`

    def follows(self, position: Position) -> bool:
        """Return whether nothing is missing between a position and this event."""
        return not self.offset or (
            self.offset == position.offset + 1 and self.epoch == position.epoch
        )

    def is_read_at(self, position: Position) -> bool:
        """Return whether a reader at this position of the topic has had this event."""
        return 0 < self.offset <= position.offset and self.epoch == position.epoch

    def encoded(
        self,
        encode: Callable[["Event"], bytes],
        framing: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """Return the event in one form, framed for one kind of connection; made once a process."""
        form = encode, framing
        try:
            return self._encoded[form]
        except KeyError:
            body = encode(self) if framing is None else framing(encode(self))
            return self._encoded.setdefault(form, body)

    def forget_encoded(self) -> None:
        """Drop the encoded forms; they are made anew for a reader that lags so far."""
        self._encoded.clear()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, str, int, str, str, str | None]:
        return (self.topic, self.epoch, self.offset, self.type, self.data, self.meta)

    def __repr__(self) -> str:
        return f"<Event {self.topic} {self.id or 'ephemeral'} {self.type} {self.data[:60]}>"


class RepeatedEvent(Event):
    """An event that was published again with its key: it has the place of the first."""

    __slots__ = ()

    is_repeated = True


class PendingEvent(Event):
    """An event that waits for a transaction's commit; then it gets its place in the log."""

    is_pending = True

    def place(self, stored: Event) -> None:
        """Take the place that the event has now."""
        self.epoch, self.offset = stored.epoch, stored.offset
        self.is_pending, self.is_repeated = False, stored.is_repeated


def last_position(events: Sequence[Event], before: Position) -> Position:
    """Return where a reader at `before` stands with the events; ephemeral ones have no place."""
    for event in reversed(events):
        if event.offset:
            return event.position
    return before


def take(events: Iterable[Event], max_count: int, max_bytes: int) -> list[Event]:
    """Return the first events: one at least, else up to `max_count` with `max_bytes` of data."""
    taken: list[Event] = []
    size = 0
    for event in events:
        size += event.size
        if taken and (size > max_bytes or len(taken) == max_count):
            break
        taken.append(event)
    return taken
