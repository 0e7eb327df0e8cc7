"""The other processes that listen.

A process that is alone need not announce: nobody would hear it but itself, and that costs as much
as all the rest of a publication. Each hub says that it listens when it starts and with every look
at the heads; whoever hears of a new one tells it so. Then the new one looks at the heads at once:
what was not announced before it was known is in the log.
"""

from typing import Final

ROUNDS: Final = 5  # who has not been heard of for so many looks at the heads has gone


class Company:
    """When other processes were last heard of, by the clock of the event loop."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}

    def hear(self, process: str, now: float) -> bool:
        """One says that it listens; whether it is a new one."""
        is_new = process not in self._heard
        self._heard[process] = now
        return is_new

    def forget(self, before: float) -> None:
        """Those who were not heard of since have gone."""
        for process, heard in list(self._heard.items()):
            if heard < before:
                del self._heard[process]

    def __bool__(self) -> bool:
        return bool(self._heard)
