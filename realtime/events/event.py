"""The event: what is published, logged, announced and delivered."""

from collections.abc import Callable, Iterable, Sequence

from .position import Position


class Event:
    """One event on a topic. `offset` is 0 for an ephemeral event, which has no id."""

    __slots__ = ("_encoded", "data", "epoch", "offset", "topic", "type")

    def __init__(self, topic: str, type: str, data: str, epoch: str = "", offset: int = 0) -> None:
        self.topic = topic
        self.type = type
        self.data = data  # JSON text
        self.epoch = epoch
        self.offset = offset
        self._encoded: dict[tuple[Callable[..., bytes], Callable[..., bytes] | None], bytes] = {}

    @property
    def position(self) -> Position:
        """Where a reader stands that has just read this event."""
        return Position(self.epoch, self.offset)

    @property
    def size(self) -> int:
        """Bytes of the data in UTF-8."""
        return len(self.data) if self.data.isascii() else len(self.data.encode())

    @property
    def id(self) -> str | None:
        """The id on the wire; None for an ephemeral event."""
        return f"{self.epoch}-{self.offset}" if self.offset else None

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
        """Return the event in one form, and framed for one kind of connection.

        It is made once per process, however many connections it goes to.
        """
        form = encode, framing
        try:
            return self._encoded[form]
        except KeyError:
            body = encode(self) if framing is None else framing(encode(self))
            return self._encoded.setdefault(form, body)

    def forget_encoded(self) -> None:
        """Few will ask for it now: keep the data alone."""
        self._encoded.clear()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, str, int, str, str]:
        return (self.topic, self.epoch, self.offset, self.type, self.data)

    def __repr__(self) -> str:
        return f"<Event {self.topic} {self.id or 'ephemeral'} {self.type} {self.data[:60]}>"


def last_position(events: Sequence[Event], before: Position) -> Position:
    """Return where a reader at `before` stands with the events; ephemeral ones have no place."""
    return next((event.position for event in reversed(events) if event.offset), before)


def together(events: Iterable[Event], most: int, most_bytes: int) -> list[Event]:
    """Return the first of the events: at most so many, with so many bytes of data.

    But one at least.
    """
    taken: list[Event] = []
    size = 0
    for event in events:
        size += event.size
        if taken and (size > most_bytes or len(taken) == most):
            break
        taken.append(event)
    return taken
