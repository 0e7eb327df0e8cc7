"""Turns: each of many names comes once in a number of calls, since all at once would take long."""

from collections.abc import Iterable


class Turns:
    """Of many names a part at each call, so that each has its turn once in so many calls."""

    def __init__(self) -> None:
        self._turn = 0

    def next(self, names: Iterable[str], turns: float) -> list[str]:
        """Return the names whose turn it is: about one in `turns`, or all where that is below 2.

        Names may come and go between the calls; those that stay keep their turn.
        """
        count = max(1, int(turns))
        self._turn = (self._turn + 1) % count
        return [name for name in names if hash(name) % count == self._turn]
