"""An event loop whose clock does not wait."""

import asyncio
import selectors
from typing import Any


class _Skipping(selectors.DefaultSelector):
    """A selector that does not sleep: it moves the loop's clock instead."""

    loop: "InstantLoop"

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("Every task waits for another one: a deadlock.")
            self.loop.now += max(0.0, timeout)
        return events


class InstantLoop(asyncio.SelectorEventLoop):
    """An event loop whose sleeps take no time. For code without threads or sockets; what it runs
    is the same in each run, so that what hypothesis finds can be found again."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _Skipping()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now
