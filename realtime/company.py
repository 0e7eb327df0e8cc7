"""The other processes that listen.

A process that is alone need not announce: nobody would hear it but itself, and that costs as much
as all the rest of a publication. Each hub says that it listens when it starts, and asks who else
does; and again with every look at the heads. Who is asked, or hears of one it did not know, answers
it. Who is answered looks at the heads at once: what the other has not announced, because it knew of
nobody, is in the log.
"""

from typing import Final

from .announcements import Hello

ROUNDS: Final = 5  # who has not said hello for so many times as long as it said has gone


class Company:
    """Until when each is taken to be there, by the clock of the event loop."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def hear(self, hello: Hello, now: float) -> bool:
        """One says that it listens; whether it is a new one."""
        is_new = hello.process not in self._until
        self._until[hello.process] = now + ROUNDS * hello.every
        return is_new

    def forget(self, now: float) -> None:
        """Those who have not been heard of for too long."""
        for process, until in list(self._until.items()):
            if until < now:
                del self._until[process]

    def __bool__(self) -> bool:
        return bool(self._until)
