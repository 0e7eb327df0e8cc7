"""Announcements that wait for their transaction's commit: the first one announces them all."""

import threading
from itertools import count
from typing import Final
from weakref import WeakValueDictionary

from ..events.event import Event
from .announce import announce


class PendingAnnouncement:
    """Announce an event, and with it those of the same thread that wait behind it.

    Only the transaction holds it: what is rolled back, as by a savepoint, is gone with it.
    """

    def __init__(self, event: Event) -> None:
        self.event = event
        self._number = next(_numbers)
        self._pending = _thread.pending
        self._pending[self._number] = self

    def send(self) -> None:
        """Announce, unless one that was called before has done so."""
        if self._number not in self._pending:
            return
        numbers = [number for number in self._pending if number >= self._number]
        announce([self._pending.pop(number).event for number in numbers])


class _Thread(threading.local):
    def __init__(self) -> None:
        self.pending: WeakValueDictionary[int, PendingAnnouncement] = WeakValueDictionary()


_numbers: Final = count()
_thread: Final = _Thread()
