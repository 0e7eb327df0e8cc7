"""How far this process knows its topics to reach: by that it notices a log that went backwards.

A database that is set back, by a failover to a replica that was behind or by a restore, gives
offsets again that others have read as other events. What is noted here was committed before.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from ..events.position import Position

MAX_TOPICS: Final = 10_000  # noted last; of the others nothing is known


class KnownHeads:
    """The newest position of each topic that is known to have been stored."""

    def __init__(self) -> None:
        self._positions: OrderedDict[str, Position] = OrderedDict()  # the one noted last is last
        self._lock = threading.Lock()

    def note(self, positions: Iterable[tuple[str, Position]]) -> None:
        """Take note of positions, by topic, that somebody has committed."""
        known = self._positions
        with self._lock:
            for topic, position in positions:
                if not is_behind(position, known.get(topic)):
                    known[topic] = position
                known.move_to_end(topic)
            while len(known) > MAX_TOPICS:
                known.popitem(last=False)

    def of(self, topics: Sequence[str]) -> dict[str, Position]:
        """Return what is known now; a statement that begins after this has to see as much."""
        with self._lock:
            return {name: self._positions[name] for name in topics if name in self._positions}


known_heads: Final = KnownHeads()


def is_behind(head: Position, known: Position | None) -> bool:
    """Return whether a topic that stands at `head` has lost events that it had."""
    return known is not None and head.epoch == known.epoch and head.offset < known.offset
