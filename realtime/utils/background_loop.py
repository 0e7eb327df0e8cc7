"""An event loop in a thread of its own, for synchronous code that needs what lives in one."""

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, ParamSpec, TypeVar

from django.utils.asyncio import async_unsafe

P = ParamSpec("P")
T = TypeVar("T")

STOP_SECONDS: Final = 5.0


class BackgroundLoop:
    """Started when it is first used; what several threads call at once runs in it together."""

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.stop)

    def _forget(self) -> None:
        # In a process that was forked off there is no thread.
        self._lock = threading.Lock()
        self._running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None

    @async_unsafe
    def run(
        self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what an async function returns in the loop; the calling thread waits for it."""
        loop = self._started()
        return asyncio.run_coroutine_threadsafe(function(*args, **kwargs), loop).result()

    def stop(self) -> None:
        """End the loop and what lives in it; the next call begins a new one."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            loop, thread = running
            with suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(loop.stop)
            thread.join(STOP_SECONDS)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            # One whose thread has ended, as by a `SystemExit` of what ran there, answers nothing.
            if self._running is None or not self._running[1].is_alive():
                self._running = _start()
            return self._running[0]


def _start() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_serve, args=[loop], name="realtime-background", daemon=True)
    try:
        thread.start()
    except BaseException:
        loop.close()
        raise
    return loop, thread


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()


background_loop: Final = BackgroundLoop()
