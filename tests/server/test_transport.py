"""Plain sockets in this process; and the whole server over a Unix socket."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from realtime.server import transport as transport_module
from realtime.server.limits import Limits
from realtime.server.timeouts import Timeouts
from realtime.server.transport import SocketTransport

from ..support.attempts import three_tries
from ..support.clients import eventually
from .support import Worker, frame

Start = Callable[..., Worker]
MUCH = b"m" * 3_000_000  # more than a socket takes


def test_a_unix_socket(start: Start, tmp_path: Path) -> None:
    worker = start(uds=str(tmp_path / "socket"))
    with worker.client() as client:
        client.request("/scope")
        body = client.response().body
        assert b'"client": null' in body
        assert b'"server": null' in body
        client.request("/firehose?mb=1")
        assert len(client.response().body) == 16 * 65_536
    with worker.client() as client:
        client.upgrade()
        client.send(frame(1, b"hi"))
        assert client.frame() == (0x81, b"hi")
    with worker.client() as client:
        client.request("/lane")
        worker.wait_for("lane chunk")
        assert worker.get("/broadcast?size=20") == b"1"


@pytest.mark.parametrize("mb", [1, 3])
def test_a_response_is_flushed_before_the_connection_is_closed(shared: Worker, mb: int) -> None:
    with shared.client(receive_buffer=4_096) as client:
        client.request(f"/firehose?mb={mb}", "Connection: close")
        time.sleep(0.1)
        assert len(client.response().body) == mb * 16 * 65_536
        assert client.rest() == b""


# -- plain sockets, in this process


class Notes:
    """A receiver that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.told.append(data)

    def eof_received(self) -> None:
        self.told.append("eof")

    def peer_left(self, reset: bool) -> None:
        self.told.append("left")

    def flushed(self) -> None:
        self.told.append("flushed")

    def connection_lost(self) -> None:
        self.told.append("lost")


class Pair:
    """A transport that is read, and the socket of its peer."""

    def __init__(self) -> None:
        self.peer = socket.socket()
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
            self.peer.connect(listener.getsockname())
            self.sock, _ = listener.accept()
        self.peer.setblocking(False)
        self.sock.setblocking(False)
        loop = asyncio.get_running_loop()
        self.timeouts = Timeouts(Limits(), 20.0)
        self.transport = SocketTransport(loop, self.timeouts, self.sock, None, None)
        self.receiver = Notes()
        self.transport.receiver = self.receiver
        self.transport.resume_reading()

    @property
    def told(self) -> list[object]:
        return self.receiver.told

    async def read(self, count: int) -> bytes:
        """Read that many bytes; fewer at the end of the connection."""
        loop, parts = asyncio.get_running_loop(), bytearray()
        async with asyncio.timeout(10):
            while size := min(count - len(parts), 65_536):
                part = await loop.sock_recv(self.peer, size)
                if not part:
                    break
                parts += part
        return bytes(parts)

    def reset(self) -> None:
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.peer.close()

    def close(self) -> None:
        self.transport.abort()
        self.peer.close()


On = Callable[[Callable[[Pair], Awaitable[None]]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def on(request: pytest.FixtureRequest) -> Iterator[On]:
    """Runs a coroutine with a new pair."""

    async def with_pair(main: Callable[[Pair], Awaitable[None]]) -> None:
        pair = Pair()
        try:
            await main(pair)
        finally:
            pair.close()
            await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=request.param) as runner:
        yield lambda main: runner.run(with_pair(main))


def test_connection_closed_with_bytes_pending_ends_when_they_are_read(on: On) -> None:
    async def main(pair: Pair) -> None:
        pair.transport.write(MUCH)
        assert pair.transport.pending
        pair.transport.close()
        assert not pair.transport.closed
        assert await pair.read(2 * len(MUCH)) == MUCH
        await eventually(lambda: pair.told)
        assert pair.told == ["lost"]
        assert pair.transport.closed
        assert pair.sock.fileno() == -1

    on(main)


def test_each_part_that_a_reader_takes_gives_it_more_time(on: On) -> None:
    async def main(pair: Pair) -> None:
        pair.transport.write(MUCH)
        stalled = pair.timeouts.stalled
        for _ in range(3):
            since = stalled[pair.transport]
            await asyncio.sleep(0.01)
            await pair.read(400_000)
            await eventually(lambda since=since: stalled[pair.transport] > since)
        await pair.read(len(MUCH) - 3 * 400_000)
        await eventually(lambda: not stalled)
        assert pair.told == ["flushed"]

    on(main)


def test_an_abort_is_told_once(on: On) -> None:
    async def main(pair: Pair) -> None:
        pair.transport.write(MUCH)
        pair.transport.abort()
        pair.transport.abort()
        pair.transport.close()
        await asyncio.sleep(0.02)
        assert pair.told == ["lost"]
        assert not pair.transport.pending
        assert not pair.timeouts.stalled

    on(main)


def test_the_peers_end_is_told_once(on: On) -> None:
    async def main(pair: Pair) -> None:
        pair.peer.send(b"last")
        pair.peer.shutdown(socket.SHUT_WR)
        await eventually(lambda: "eof" in pair.told)
        await asyncio.sleep(0.05)
        pair.transport.resume_reading()
        await asyncio.sleep(0.05)
        assert pair.told == [b"last", "eof"]
        assert not pair.timeouts.paused

    on(main)


def test_reset_after_data_is_noticed(on: On) -> None:
    async def main(pair: Pair) -> None:
        pair.transport.pause_reading()
        pair.peer.send(b"last")
        pair.reset()
        pair.transport.resume_reading()
        await eventually(lambda: "lost" in pair.told)
        assert pair.told == [b"last", "lost"]

    on(main)


def test_after_a_close_nothing_more_is_received(on: On) -> None:
    async def main(pair: Pair) -> None:
        pair.transport.write(MUCH)
        pair.transport.close(linger=True)
        pair.peer.send(b"another request")
        await asyncio.sleep(0.05)
        assert pair.told == []
        assert await pair.read(len(MUCH)) == MUCH
        pair.peer.send(b"and another")
        await eventually(lambda: pair.told)
        assert pair.told == ["lost"]

    on(main)


def test_peer_that_still_sends_gets_time_to_read_the_answer(
    on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "CLOSING_GRACE", 60)

    async def main(pair: Pair) -> None:
        pair.transport.write(b"refused")
        pair.transport.close(linger=True)
        pair.peer.send(MUCH[:50_000])
        assert await pair.read(100) == b"refused"
        assert not pair.transport.closed
        pair.peer.close()
        await eventually(lambda: pair.transport.closed)
        assert pair.told == ["lost"]

    on(main)


def test_the_time_to_read_the_answer_ends(on: On, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "CLOSING_GRACE", 0.1)

    async def main(pair: Pair) -> None:
        pair.transport.close(linger=True)
        assert await pair.read(100) == b""
        assert not pair.transport.closed
        await eventually(lambda: pair.transport.closed)
        assert pair.told == ["lost"]

    three_tries(lambda: on(main))
