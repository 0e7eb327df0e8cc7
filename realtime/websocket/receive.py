"""How a consumer learns at once that its peer has left, also while it handles a message.

`realtime.server` says so by an event in the ASGI scope, and its own bounded queue holds what was
received. Other servers say so after the messages: for them, `BufferedReceive` reads ahead, and
gives the consumer the same two things.
"""

import asyncio
from collections import deque

from ..metrics.server_series import INBOX_FULL
from ..server.disconnect import DisconnectEvent
from ..utils.aio import spawn
from ..utils.asgi import Message, Receive


class BufferedReceive:
    """Read ahead of the consumer: at most `limit` messages, then the server has to keep them."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self.disconnect_event = DisconnectEvent()
        self._receive = receive
        self._limit = limit
        self._messages: deque[Message] = deque()
        self._changed = asyncio.Event()
        self._reader = spawn(self._read())

    async def receive(self) -> Message:
        """Return the next message, as ASGI's own `receive`; raise what that has raised."""
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
                    self.disconnect_event.set()
                    return
                if len(self._messages) >= self._limit:
                    INBOX_FULL.inc()
                while len(self._messages) >= self._limit:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            self._changed.set()
