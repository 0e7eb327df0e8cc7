"""A stream of a site's own view that is in somebody's name, and ends when the name is lost."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ..access.connections import get_connections
from ..access.identity import Identity
from ..access.inspection import ConnectionInfo
from ..access.scopes import is_scoped
from ..exceptions import NotIdentified
from ..streaming.response import EventStreamResponse, StreamResponse


class StreamGuard:
    """Ends a response when its user signs out, is deactivated or deleted, or loses the token.

    An event stream ends, and its client is refused when it comes back. Any other is cut: what has
    arrived would look complete.
    """

    def __init__(
        self, response: StreamResponse, identity: Identity, address: str | None = None
    ) -> None:
        self._identity = identity
        self._address = address
        self._is_over = False
        self._reading: asyncio.Task[Any] | None = None  # while the source makes the next part
        self._ends_well = isinstance(response, EventStreamResponse)
        response.put_through(self._parts)

    async def recheck(self, identity: Identity | None) -> None:
        """End the stream if it is in nobody's name any more, or its token has got scopes."""
        if identity is None or is_scoped(identity.user):
            await self.fail()

    def describe(self) -> ConnectionInfo:
        """Return what an operator may want to know of this stream."""
        return ConnectionInfo("stream", (), self._address)

    async def fail(self) -> None:
        """End the stream: it can't be told whether it may go on."""
        self._is_over = True
        if self._reading is not None:
            self._reading.cancel()

    async def _parts(self, source: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        connections = get_connections()
        connections.add(self._identity, self)
        try:
            async with aclosing(source):
                while (part := await self._next(source)) is not None:
                    yield part
        finally:
            connections.discard(self._identity, self)
        if self._is_over and not self._ends_well:
            raise NotIdentified("The user of this stream has been signed out.")

    async def _next(self, source: AsyncGenerator[bytes, None]) -> bytes | None:
        """Return the next part; None at the end."""
        if self._is_over:
            return None
        task = self._reading = asyncio.current_task()
        try:
            return await anext(source, None)
        except asyncio.CancelledError:
            # By `fail` alone; or the client has left too.
            if not self._is_over or task is None or task.uncancel():
                raise
            return None
        finally:
            self._reading = None
