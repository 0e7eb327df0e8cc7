"""The subscribers that the fan-out writes to in one form, and what each was sent."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from ..events.event import Event
from ..events.position import Position
from ..server.extensions import FastLane, Framing, Group

Encode: TypeAlias = Callable[[Event], bytes]


class Sink(NamedTuple):
    """Where a synced subscriber's events go, and in which form.

    `encode` is the same function of a module for all connections of a kind, which are a group by
    it: a closure would make groups of one, and fill each event's cache of encoded forms. A form
    that depends on the subscriber's other topics, as the ids of a combined stream do, has no sink.
    """

    encode: Encode
    lane: FastLane

    def try_write(self, events: Sequence[Event]) -> int:
        """Write the events now, all of them; return their bytes, 0 if nothing was taken."""
        framing = self.lane.framing
        if framing is None:
            return 0
        data = join(events, self.encode, framing)
        return len(data) if self.lane.try_write(data) else 0


class Subscriber(Protocol):
    """What reads one topic."""

    @property
    def position(self) -> Position:
        """Return the position of the last event that was handed out."""

    def notify(self, events: Sequence[Event]) -> None:
        """Take these events, which are new, or have them read; without any, read what is new."""

    def note_sent(self, events: int, size: int) -> None:
        """Take note of how many events, and bytes, it was sent while it was synced."""

    def unsynced(self, position: Position, events: Sequence[Event]) -> None:
        """Read on from `position`; `events` are the ephemeral ones that were missed since."""


class Sent(NamedTuple):
    """How many events, and bytes."""

    events: int
    size: int


NOTHING: Final = Sent(0, 0)


class Synced:
    """Subscribers that are written to in one form, by the index that `lanes` has given them."""

    __slots__ = (
        *("encode", "framing", "lanes", "removed", "sending", "sent", "sent_until", "skipped"),
        "subscribers",
    )

    def __init__(self, encode: Encode, framing: Framing, kind: type[Group]) -> None:
        assert getattr(encode, "__closure__", None) is None, f"{encode} is made for one connection"
        self.encode = encode
        self.framing = framing
        self.lanes = kind()
        self.subscribers: list[Subscriber | None] = []
        self.removed = 0
        self.sent_until = 0  # the indexes below have the events that are being sent
        self.sent = NOTHING  # by now, those that are being sent too
        self.sending = NOTHING
        self.skipped = 0  # removed before they had what is being sent

    def sent_to(self, index: int, before: Sent) -> Sent:
        """Return what was sent to a subscriber since it was synced."""
        rest = NOTHING if index < self.sent_until else self.sending
        sent = self.sent
        return Sent(sent.events - before.events - rest.events, sent.size - before.size - rest.size)


def join(events: Sequence[Event], encode: Encode, framing: Framing) -> bytes:
    if len(events) == 1:  # as a rule
        return events[0].encoded(encode, framing)
    return b"".join([event.encoded(encode, framing) for event in events])
