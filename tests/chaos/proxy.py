"""A TCP proxy that does to its connections what networks do: cut, swallow, stall, fall silent."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeAlias

CHUNK: Final = 65_536  # bytes read at once

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Wire:
    """One connection through the proxy, and what is wrong with it."""

    def __init__(self, client: Streams, server: Streams) -> None:
        self.client, self.server = client, server
        self.is_silent = False  # nothing passes any more, and neither end is told
        self.is_swallowing = False  # questions pass, answers do not
        self.budget: int | None = None  # bytes of answers until it is cut

    def cut(self) -> None:
        """Reset both ends."""
        for _, writer in (self.client, self.server):
            writer.transport.abort()


class Proxy:
    """Listens on a port of 127.0.0.1 for as long as its `with` block lasts."""

    def __init__(self, connect: Callable[[], Awaitable[Streams]]) -> None:
        self._connect = connect
        self._wires: set[Wire] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self.heal()

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        self.heal()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def heal(self) -> None:
        """Let everything through from now on. Connections that lost bytes are cut."""
        self.delay = 0.0  # seconds before each chunk
        self.is_refusing = False
        self.budget: int | None = None
        self._flows.set()
        for wire in list(self._wires):
            wire.budget = None
            if wire.is_swallowing:
                wire.cut()

    def cut(self) -> None:
        """Reset all connections; new ones work."""
        for wire in list(self._wires):
            wire.cut()

    def refuse(self) -> None:
        """Reset all connections, and new ones at once, until `heal`."""
        self.is_refusing = True
        self.cut()

    def cut_after(self, count: int) -> None:
        """Reset each connection, new ones too, after so many bytes of answers, until `heal`."""
        self.budget = count
        for wire in self._wires:
            wire.budget = count

    def freeze(self) -> None:
        """Let nothing pass until `heal`, and nothing be lost."""
        self._flows.clear()

    def swallow(self) -> None:
        """Drop the answers on all connections until `heal`, which cuts them."""
        for wire in self._wires:
            wire.is_swallowing = True

    def silence(self) -> None:
        """Let nothing pass on today's connections any more; new ones work."""
        for wire in self._wires:
            wire.is_silent = True

    def half_open(self) -> None:
        """As `silence`, and the server knows that the client has gone."""
        for wire in self._wires:
            wire.is_silent = True
            wire.server[1].transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_refusing:
            writer.transport.abort()
            return
        try:
            server = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        wire = Wire((reader, writer), server)
        wire.budget = self.budget
        self._wires.add(wire)
        pumps = [
            asyncio.create_task(self._pump(wire, wire.client, wire.server)),
            asyncio.create_task(self._pump(wire, wire.server, wire.client)),
        ]
        self._tasks.update(pumps)
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*pumps, return_exceptions=True)
        self._tasks.difference_update(pumps)
        self._wires.discard(wire)
        wire.cut()

    async def _pump(self, wire: Wire, source: Streams, target: Streams) -> None:
        is_answer = source is wire.server
        with suppress(OSError):
            while data := await source[0].read(CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._flows.wait()
                if wire.is_silent or (wire.is_swallowing and is_answer):
                    continue
                if is_answer and wire.budget is not None:
                    data = data[: wire.budget]
                    wire.budget -= len(data)
                target[1].write(data)
                await target[1].drain()
                if is_answer and wire.budget == 0:
                    wire.cut()
        # A silent connection's client learns nothing from the server's end.
        if not (wire.is_silent and is_answer):
            for _, writer in (wire.client, wire.server):
                writer.close()
