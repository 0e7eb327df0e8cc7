"""How a consumer learns at once that its peer has left, also while it handles a message.

`realtime.server` says so by an event in the ASGI scope, and its own bounded queue holds what was
received. Other servers say so behind the messages: for them, `Inbox` reads ahead, and gives the
consumer the same two things.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from ..utils.aio import spawn

EXTENSION: Final = "realtime.disconnect"

Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]


class Gone(Protocol):
    """Set once, when the peer has left."""

    def is_set(self) -> bool:
        """Whether it has left."""

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` when it leaves, or now if it has left."""


def find_gone(scope: Mapping[str, Any]) -> Gone | None:
    """The server's own event, where it offers one."""
    extension = (scope.get("extensions") or {}).get(EXTENSION)
    return extension["event"] if extension else None


class Inbox:
    """Reads ahead of the consumer: at most `limit` messages, then the server has to keep them."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self.gone = _Left()
        self._receive = receive
        self._limit = limit
        self._messages: deque[Mapping[str, Any]] = deque()
        self._changed = asyncio.Event()
        self._reader = spawn(self._read())

    async def receive(self) -> Mapping[str, Any]:
        """The next message, as ASGI's own `receive`; raises what that has raised."""
        while not self._messages:
            if self._reader.done():
                self._reader.result()
            self._changed.clear()
            await self._changed.wait()
        message = self._messages.popleft()
        self._changed.set()
        return message

    def close(self) -> None:
        """Read no more."""
        self._reader.cancel()

    async def _read(self) -> None:
        try:
            while True:
                message = await self._receive()
                self._messages.append(message)
                self._changed.set()
                if message["type"] == "websocket.disconnect":
                    self.gone.set()
                    return
                while len(self._messages) >= self._limit:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            self._changed.set()


class _Left:
    def __init__(self) -> None:
        self._set = False
        self._callbacks: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        for callback in self._callbacks:
            callback()

    def add_callback(self, callback: Callable[[], None]) -> None:
        if self._set:
            callback()
        else:
            self._callbacks.append(callback)
