"""The body of an HTTP/1 request, from the connection to ASGI's `receive`."""

import asyncio
from enum import Enum
from typing import Any, Final, Protocol

from realtime.server.chunked import ChunkedBody
from realtime.server.http_request import RequestHead
from realtime.server.state import ServerState
from realtime.server.transport import Transport

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
TURNS: Final = 4
"""Turns of the event loop until an application is told of a disconnect.

Before 6.1, Django's handler asks until its response is complete, and stops then; told before,
it raises an error that refers to the request, and that to it: only the garbage collector would free
them.
"""

REPEAT_SECONDS: Final = 0.05
"""What an application waits for a disconnect that it has been told of already."""


class _Connection(Protocol):
    """What a body needs of its connection, which `Timeouts` tells when it has timed out."""

    server: ServerState
    transport: Transport


class BodyState(Enum):
    """How far a body has come."""

    ARRIVING = "some of it has not been received"
    ARRIVED = "received, but the application does not have the end of it"
    TAKEN = "the application has all of it"


class RequestBody:
    """Keep what has arrived of a body until the application receives it.

    While more waits than `receive_bytes`, the transport is not read.
    """

    __slots__ = (
        "_behind",
        "_connection",
        "_decoder",
        "_is_closed",
        "_is_told",
        "_left",
        "_parts",
        "_size",
        "_waiter",
        "owes_continue",
        "state",
    )

    def __init__(self, connection: _Connection, head: RequestHead) -> None:
        self.state = BodyState.ARRIVING if head.has_body else BodyState.ARRIVED
        self.owes_continue = head.expects_continue and head.has_body
        self._connection = connection
        self._decoder = (
            ChunkedBody(connection.server.limits.max_body_size) if head.chunked else None
        )
        self._left = head.content_length or 0
        self._parts: list[bytes] = []
        self._size = 0  # of the parts
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False
        self._behind = 0.0  # seconds that the client is behind the minimum rate
        self._is_told = False  # the application, that it is closed

    @property
    def is_complete(self) -> bool:
        """Return whether all of it has been received."""
        return self.state is not BodyState.ARRIVING

    def data_received(self, data: bytes) -> bytes:
        """Take what belongs to the body; return what follows it. Raises BadRequest."""
        if self._decoder is not None:
            part, rest = self._decoder.feed(data)
            is_complete = self._decoder.is_complete
        else:
            part, rest = data[: self._left], data[self._left :]
            self._left -= len(part)
            is_complete = not self._left
        if part:
            self._parts.append(part)
            self._size += len(part)
        is_awaited = self._credit(len(data) - len(rest))
        server = self._connection.server
        if is_complete:
            self.state = BodyState.ARRIVED
        elif self._size > server.limits.receive_bytes:
            self._connection.transport.pause_reading()
        elif is_awaited:
            server.timeouts.bodies[self._connection] = server.loop.time() - self._behind
        self._wake()
        return rest

    def _credit(self, size: int) -> bool:
        """Count what has come against the minimum rate. Return whether it was waited for."""
        server = self._connection.server
        since = server.timeouts.bodies.pop(self._connection, None)
        if since is not None:
            self._behind = server.loop.time() - since
        rate = server.limits.min_receive_rate
        self._behind = max(0.0, self._behind - size / rate) if rate else 0.0
        return since is not None

    async def receive(self) -> dict[str, Any]:
        """ASGI's receive."""
        while True:
            if self._parts or self.state is BodyState.ARRIVED:
                return self._take()
            if self._is_closed:
                # Never without a turn for the loop: an application that asks on and on would hold
                # it, and its cancellation could not arrive.
                if self._is_told:
                    await asyncio.sleep(REPEAT_SECONDS)
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                self._is_told = True
                return {"type": "http.disconnect"}
            if self.state is BodyState.ARRIVING:
                self._expect()
            if self._waiter is not None and not self._waiter.done():
                raise RuntimeError("receive() is already being awaited.")
            waiter = self._waiter = self._connection.server.loop.create_future()
            try:
                await waiter
            finally:
                if self._waiter is waiter:  # not when a cancelled receive() was replaced
                    self._waiter = None

    def _take(self) -> dict[str, Any]:
        self._credit(0)  # the client's time stands still while the application has something to do
        server, parts = self._connection.server, self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        size = server.request_buffer_size or len(body)
        body, rest = body[:size], body[size:]
        was_full = self._size > server.limits.receive_bytes
        self._parts, self._size = ([rest] if rest else []), len(rest)
        if was_full and self._size <= server.limits.receive_bytes and not self._is_closed:
            self._connection.transport.resume_reading()
        if self.state is BodyState.ARRIVED and not rest:
            self.state = BodyState.TAKEN
        return {
            "type": "http.request",
            "body": body,
            "more_body": self.state is not BodyState.TAKEN,
        }

    def _expect(self) -> None:
        server = self._connection.server
        if self.owes_continue:
            self.owes_continue = False
            self._connection.transport.write(CONTINUE)
        server.timeouts.bodies[self._connection] = server.loop.time() - self._behind

    def close(self) -> None:
        """Have `receive` return a disconnect after what has arrived."""
        self._is_closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
