"""What the server counts. It does not know where the numbers go: who wants them sets these."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


def ignore(*_: object) -> None:
    """Count nothing."""


@dataclass(slots=True)
class ServerCounters:
    """What is called when something happens that a person who operates a server wants to know."""

    handshake_refused: Callable[[str], None] = ignore  # with the reason
    stalled_closed: Callable[[], None] = ignore
    inbox_full: Callable[[], None] = ignore
    worker_restarted: Callable[[], None] = ignore
    loop_lag: Callable[[float], None] = ignore  # with the seconds that the loop was late


counters: Final = ServerCounters()
