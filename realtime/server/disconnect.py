"""The event that is set as soon as the peer has left."""

import asyncio
from collections.abc import Callable


class DisconnectEvent:
    """Tell of one disconnect: to be awaited, and with callbacks.

    It is set once, by the server, or by whatever reads the disconnect message of another one.
    """

    # A tenth of the size of asyncio's own event, which matters: every idle connection has one.

    __slots__ = ("_callbacks", "_set", "_waiters")

    def __init__(self) -> None:
        self._set = False
        self._waiters: list[asyncio.Future[None]] | None = None
        self._callbacks: list[Callable[[], None]] | None = None

    def __reduce__(self) -> tuple[type["DisconnectEvent"], tuple[()]]:
        # Of a scope that is pickled, as by Daphne's test harness: nobody leaves there.
        return DisconnectEvent, ()

    def is_set(self) -> bool:
        """Return whether the peer has left."""
        return self._set

    def set(self) -> None:
        """Resume what waits, and call the callbacks. A second time does nothing."""
        if self._set:
            return
        self._set = True
        waiters, self._waiters = self._waiters, None
        callbacks, self._callbacks = self._callbacks, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        for callback in callbacks or ():
            callback()

    async def wait(self) -> None:
        """Return once the peer has left."""
        if self._set:
            return
        waiter = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if self._waiters is not None:
                self._waiters.remove(waiter)

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the peer leaves, or now if it has left."""
        if self._set:
            callback()
            return
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(callback)

    def remove_callback(self, callback: Callable[[], None]) -> None:
        """Undo `add_callback`; unknown ones are ignored."""
        if self._callbacks is not None and callback in self._callbacks:
            self._callbacks.remove(callback)
