"""Reading ahead for servers that say behind the messages that the peer has left."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from realtime.websocket.receive import BufferedReceive

DISCONNECT = {"type": "websocket.disconnect", "code": 1001}


def message(number: int) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": str(number)}


class Server:
    """What a server has for its application, and how much of it was asked for."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.taken = 0

    async def receive(self) -> Any:
        item = await self.queue.get()
        self.taken += 1
        if isinstance(item, Exception):
            raise item
        return item


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def buffered(server: Server) -> AsyncIterator[BufferedReceive]:
    buffered = BufferedReceive(server.receive, 4)
    yield buffered
    buffered.close()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_in_order(server: Server, buffered: BufferedReceive) -> None:
    for number in range(20):
        server.queue.put_nowait(message(number))
    server.queue.put_nowait(DISCONNECT)
    received = [await buffered.receive() for _ in range(21)]
    assert received == [*(message(number) for number in range(20)), DISCONNECT]


async def test_a_disconnect_is_known_before_its_turn(
    server: Server, buffered: BufferedReceive
) -> None:
    left: list[str] = []
    buffered.disconnect_event.add_callback(lambda: left.append("early"))
    server.queue.put_nowait(message(1))
    await settle()
    assert not buffered.disconnect_event.is_set()
    server.queue.put_nowait(DISCONNECT)
    await settle()
    assert buffered.disconnect_event.is_set()
    buffered.disconnect_event.add_callback(lambda: left.append("late"))
    assert left == ["early", "late"]
    assert await buffered.receive() == message(1)


async def test_is_bounded(server: Server, buffered: BufferedReceive) -> None:
    for number in range(20):
        server.queue.put_nowait(message(number))
    await settle()
    assert server.taken == 4
    await buffered.receive()
    await settle()
    assert server.taken == 5


async def test_an_error_of_the_server_reaches_the_consumer(
    server: Server, buffered: BufferedReceive
) -> None:
    server.queue.put_nowait(message(1))
    server.queue.put_nowait(OSError("gone"))
    assert await buffered.receive() == message(1)
    with pytest.raises(OSError, match="gone"):
        await buffered.receive()


async def test_closing_reads_no_more(server: Server, buffered: BufferedReceive) -> None:
    buffered.close()
    await settle()
    server.queue.put_nowait(message(1))
    await settle()
    assert server.taken == 0
