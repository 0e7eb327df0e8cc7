"""What waits for the commit of a transaction, so that all of it is done at once."""

import threading
from collections import defaultdict
from itertools import count
from typing import Any, Final, Self
from weakref import WeakValueDictionary


class CommitGroup:
    """Something that is to be done after a commit, with all of its class in the same thread.

    Each has its own function for `transaction.on_commit`: the first that is called does what all
    that were made after it wait for. Only the transaction holds them, so one that is rolled back,
    as to a savepoint, takes its own along.
    """

    def __init__(self) -> None:
        self._number = next(_numbers)
        self._waiting = _thread.waiting[type(self)]
        self._waiting[self._number] = self

    def take(self) -> list[Self]:
        """Return this one and those made after it; nothing if it was taken before."""
        if self._number not in self._waiting:
            return []
        numbers = [number for number in self._waiting if number >= self._number]
        return [self._waiting.pop(number) for number in numbers]


class _Thread(threading.local):
    def __init__(self) -> None:
        self.waiting: defaultdict[type, WeakValueDictionary[int, Any]] = defaultdict(
            WeakValueDictionary
        )


_numbers: Final = count()
_thread: Final = _Thread()
