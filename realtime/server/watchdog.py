"""Find what blocks the event loop, while it does, and say where.

A thread asks the loop for a sign of life. When none comes in time it inspects what the loop's
thread is executing: whatever that is, a sleep, a query, a request to elsewhere, a long calculation,
every connection of the process waits for it.
"""

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from inspect import currentframe
from types import FrameType
from typing import Final

logger = logging.getLogger("realtime.server")

CHECKS: Final = 4  # in the time that is allowed: what takes longer by a quarter is found for sure
DEEPEST: Final = 20  # frames shown
_LOOP: Final = frozenset({"asyncio.base_events", "asyncio.events", "selectors"})

SENTENCE: Final = "The event loop has been held for {seconds:.2f} s, and every connection with it:"


def _log(report: str) -> None:
    logger.warning("%s", report)


class LoopWatchdog:
    """Watch `loop`, which runs in the thread that calls `start`, until `stop`.

    `report` is called in another thread, once for each time that the loop is held for `seconds`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        report: Callable[[str], None] = _log,
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._report = report
        self._watched = 0
        self._asked = 0.0
        self._answered = True
        self._base: FrameType | None = None  # what runs the loop
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="realtime-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch the loop of this thread."""
        self._watched = threading.get_ident()
        self._thread.start()

    def stop(self) -> None:
        """End the watch."""
        self._ended.set()

    def _answer(self) -> None:
        here = currentframe()
        frame = here and here.f_back
        while frame is not None and _module(frame) == "asyncio.events":
            frame = frame.f_back
        if frame is not None and frame.f_code.co_name == "_run_once":
            frame = frame.f_back
        self._base = frame
        self._answered = True

    def _run(self) -> None:
        reported = False
        while not self._ended.wait(self._seconds / CHECKS):
            if self._loop.is_closed():  # perhaps before it has answered
                return
            if self._answered:
                self._asked, self._answered, reported = time.monotonic(), False, False
                try:
                    self._loop.call_soon_threadsafe(self._answer)
                except RuntimeError:  # closed
                    return
            elif not reported and time.monotonic() - self._asked >= self._seconds:
                reported = self._inspect()

    def _inspect(self) -> bool:
        """Report what the loop's thread is executing. Return whether that holds the loop."""
        frames: list[tuple[FrameType, int]] = []
        frame = sys._current_frames().get(self._watched)
        while frame is not None and frame is not self._base:
            frames.append((frame, frame.f_lineno))
            frame = frame.f_back
        # Waiting for something to do, or for a processor; or it has gone on since.
        if not frames or _module(frames[0][0]) in _LOOP or self._answered or self._ended.is_set():
            return False
        held = time.monotonic() - self._asked
        theirs = [each for each in frames if _module(each[0]) not in _LOOP]
        stack = traceback.StackSummary.extract(iter(theirs[:DEEPEST][::-1]))
        text = "".join(stack.format()).rstrip()
        self._report(f"{SENTENCE.format(seconds=held)}\n{text}")
        return True


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
