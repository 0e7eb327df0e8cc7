"""uvicorn waits for all responses before it stops; streams that never end have to be told."""

import asyncio
import signal
from collections.abc import Callable
from types import FrameType


def on_sigterm(end: Callable[[], None]) -> None:
    """Call a function of this event loop before uvicorn handles the signal."""
    loop = asyncio.get_running_loop()
    by_uvicorn = signal.getsignal(signal.SIGTERM)

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(end)
        if callable(by_uvicorn):
            by_uvicorn(number, frame)

    signal.signal(signal.SIGTERM, handle)
