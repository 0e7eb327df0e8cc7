"""Turns: each of many names comes once in a number of calls, since all at once would take long."""

from typing import Final

SLOTS: Final = 256  # each has the names with a certain hash; a call takes whole slots


class Turns:
    """Of many names a part at each call, so that each has its turn once in so many calls.

    A call looks only at those whose turn it is: of 20,000 names, most are in no cache.
    """

    def __init__(self) -> None:
        self._slots: dict[int, set[str]] = {}
        self._turn = 0

    def add(self, name: str) -> None:
        """Give `name` turns, if it has none."""
        self._slots.setdefault(hash(name) % SLOTS, set()).add(name)

    def discard(self, name: str) -> None:
        """Give `name` no more turns."""
        slot = hash(name) % SLOTS
        if names := self._slots.get(slot):
            names.discard(name)
            if not names:
                del self._slots[slot]

    def next(self, turns: float) -> list[str]:
        """Return the names whose turn it is: about one in `turns`, or all where that is below 2.

        Names may come and go between the calls; those that stay keep their turn.
        """
        count = max(1, int(turns))
        turn = self._turn % count
        self._turn = turn + 1
        slots = range(turn * SLOTS // count, (turn + 1) * SLOTS // count)
        return [name for slot in slots for name in self._slots.get(slot, ())]
