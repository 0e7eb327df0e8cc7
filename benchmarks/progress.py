"""A bar on stderr, with the time that has gone and the time to go."""

import sys
import time
from collections.abc import Iterable, Sequence
from statistics import mean
from typing import Final

WIDTH: Final = 24


class Progress:
    """Of steps that are known beforehand. A step takes as long as the last time, or as another."""

    def __init__(self, steps: Iterable[str]) -> None:
        self._steps: Sequence[str] = list(steps)
        self._done = 0
        self._known: dict[str, float] = {}
        self._started = self._since = time.monotonic()

    def say(self) -> None:
        """What is being done now."""
        here = sys.stderr.isatty()
        filled = round(WIDTH * self._done / len(self._steps))
        bar = "#" * filled + "." * (WIDTH - filled)
        what = self._steps[self._done] if self._done < len(self._steps) else "done"
        clock = f"{minutes(time.monotonic() - self._started)} gone"
        if (left := self.left()) is not None:
            clock += f", about {minutes(left)} to go"
        text = f"[{bar}] {self._done}/{len(self._steps)} {clock}: {what}"
        start, end = ("\r\033[K", "") if here else ("", "\n")
        print(f"{start}{text}", end=end, file=sys.stderr, flush=True)

    def step(self) -> None:
        """One more is done."""
        now = time.monotonic()
        self._known[self._steps[self._done]] = now - self._since
        self._since = now
        self._done += 1
        if self._done == len(self._steps):
            self.say()
            if sys.stderr.isatty():
                print(file=sys.stderr)

    def left(self) -> float | None:
        """Seconds to go, once there is something to go by."""
        rest = self._steps[self._done :]
        if not self._known or not rest:
            return None
        usual = mean(self._known.values())
        return sum(self._known.get(step, usual) for step in rest)


def minutes(seconds: float) -> str:
    """As 1:05."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"
