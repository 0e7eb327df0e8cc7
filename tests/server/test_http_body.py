"""Request bodies: what waits, what is refused, and clients that leave."""

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from realtime.server.http_body import RequestBody
from realtime.server.http_request import parse_head
from realtime.server.limits import Limits

from .support import Worker, eventually

Start = Callable[..., Worker]
MB = 1_000_000


def test_a_large_body_goes_through(shared: Worker) -> None:
    with shared.client() as client:
        client.request("/length", method="POST", body=b"a" * 3 * MB)
        assert client.response().body == b"3000000"


def test_the_client_waits_to_be_asked_for_its_body(shared: Worker) -> None:
    with shared.client() as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n")
        client.send(b"Content-Length: 2\r\n\r\n")
        assert client.head().status == 100
        client.send(b"ok")
        assert client.response().body == b"ok"


def test_a_body_nobody_reads_ends_the_connection_not_the_answer(shared: Worker) -> None:
    with shared.client() as client:
        client.send(b"POST /ignore HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\nabc")
        response = client.response()
        assert (response.body, response.headers["connection"]) == (b"ignored", "close")
        client.send(b"x" * 100_000)
        assert client.rest() == b""


def test_a_body_nobody_reads_but_that_is_there_keeps_the_connection(shared: Worker) -> None:
    with shared.client() as client:
        for _ in range(2):
            client.request("/ignore", method="POST", body=b"abc")
            response = client.response()
            assert (response.body, response.headers.get("connection")) == (b"ignored", None)


def test_a_trailer_that_is_wrong_is_refused(shared: Worker) -> None:
    with shared.client() as client:
        head = b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(head + b"0\r\nA: b\nGET /hello HTTP/1.1\r\nHost: t\r\n\r\n")
        response = client.response()
        assert (response.status, response.headers["connection"]) == (400, "close")
        assert client.rest() == b""


def test_a_body_is_not_read_before_the_application_wants_it(start: Start) -> None:
    worker = start("--max-body-size", str(50 * MB))
    before = worker.rss()
    with worker.client() as client:
        client.send(
            b"POST /slowread?wait=2 HTTP/1.1\r\nHost: t\r\nContent-Length: 50000000\r\n\r\n"
        )
        client.sock.setblocking(False)
        sent, end = 0, time.monotonic() + 0.7
        while time.monotonic() < end:
            try:
                sent += client.sock.send(b"b" * 65_536)
            except BlockingIOError:
                time.sleep(0.01)
        assert sent < 30 * MB
        assert worker.rss() - before < 8 * MB
        client.sock.setblocking(True)
        client.send(b"b" * (50 * MB - sent))
        assert client.response().body == b"50000000"


def test_a_client_that_leaves_in_the_middle_of_its_body(worker: Worker) -> None:
    with worker.client() as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc")
        time.sleep(0.1)
    worker.wait_for("disconnect while reading")


def test_a_client_that_resets_while_its_body_is_not_being_read(worker: Worker) -> None:
    client = worker.client()
    client.send(
        b"POST /slowread HTTP/1.1\r\nHost: t\r\nContent-Length: 900000\r\n\r\n" + b"x" * 200_000
    )
    eventually(lambda: any(e.startswith("part") for e in worker.status()["events"]))
    client.reset()
    eventually(lambda: worker.text.count('"POST /slowread"') == 1)


# The same without sockets


class Loop(SimpleNamespace):
    def create_future(self) -> "asyncio.Future[None]":
        return asyncio.get_running_loop().create_future()

    now = 7.0

    def time(self) -> float:
        return self.now


class Connection(SimpleNamespace):
    """What a body needs, and notes of what it asks for."""

    def __init__(self, **limits: int) -> None:
        self.notes: list[str] = []
        bodies: dict[Any, float] = {}
        self.server = SimpleNamespace(
            limits=Limits(**limits),
            loop=Loop(),
            timeouts=SimpleNamespace(bodies=bodies),
            request_buffer_size=0,
        )
        self.transport = SimpleNamespace(
            pause_reading=lambda: self.notes.append("pause"),
            resume_reading=lambda: self.notes.append("resume"),
            write=lambda data: self.notes.append(data.decode()),
        )

    __hash__ = object.__hash__


def body_of(connection: Any, *headers: str) -> RequestBody:
    lines = "\r\n".join(["POST / HTTP/1.1", "Host: h", *headers])
    return RequestBody(connection, parse_head(lines.encode(), connection.server.limits))


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_request_without_a_body_is_told_of_its_end_once() -> None:
    body = body_of(Connection())
    assert body.is_complete
    assert await body.receive() == part(b"", more=False)
    waiting = asyncio.ensure_future(body.receive())
    await asyncio.sleep(0)
    body.close()
    assert await waiting == {"type": "http.disconnect"}


async def test_what_has_arrived_comes_before_the_disconnect() -> None:
    body = body_of(Connection(), "Content-Length: 5")
    body.data_received(b"ab")
    body.close()
    assert await body.receive() == part(b"ab")
    assert await body.receive() == {"type": "http.disconnect"}


async def test_asking_again_after_the_disconnect_gives_the_loop_its_turn() -> None:
    body = body_of(Connection(), "Content-Length: 5")
    body.close()
    asked = 0

    async def ask() -> None:
        nonlocal asked
        while asked < 10_000:
            asked += 1
            assert await body.receive() == {"type": "http.disconnect"}

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.2)
    assert asked < 10
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_while_too_much_waits_nothing_is_read() -> None:
    connection = Connection(receive_bytes=4)
    body = body_of(connection, "Content-Length: 10")
    body.data_received(b"abcd")
    assert connection.notes == []
    body.data_received(b"e")
    assert connection.notes == ["pause"]
    assert await body.receive() == part(b"abcde")
    assert connection.notes == ["pause", "resume"]
    assert body.data_received(b"fghijNEXT") == b"NEXT"
    assert await body.receive() == part(b"fghij", more=False)


async def test_a_request_buffer_is_no_more_than_its_size_at_once() -> None:
    connection = Connection(receive_bytes=4)
    connection.server.request_buffer_size = 3
    body = body_of(connection, "Content-Length: 8")
    body.data_received(b"abcdefgh")
    assert await body.receive() == part(b"abc")
    assert await body.receive() == part(b"def")
    assert await body.receive() == part(b"gh", more=False)


async def test_only_an_application_that_waits_makes_a_client_slow() -> None:
    connection: Any = Connection()
    body = body_of(connection, "Content-Length: 3")
    timeouts = connection.server.timeouts
    body.data_received(b"a")
    assert not timeouts.bodies
    assert await body.receive() == part(b"a")
    waiting = asyncio.ensure_future(body.receive())
    await asyncio.sleep(0)
    assert timeouts.bodies == {connection: 7.0}
    body.data_received(b"b")
    assert timeouts.bodies == {connection: 7.0}
    assert await waiting == part(b"b")
    body.data_received(b"c")
    assert not timeouts.bodies


async def test_client_that_is_behind_the_minimum_rate_catches_up_by_what_it_sends() -> None:
    connection: Any = Connection(min_receive_rate=10)
    loop, bodies = connection.server.loop, connection.server.timeouts.bodies
    body = body_of(connection, "Content-Length: 1000")

    async def send(size: int, after: float) -> float:
        """How far behind it is for the application, which asks again at once."""
        waiting = asyncio.ensure_future(body.receive())
        await asyncio.sleep(0)
        loop.now += after
        body.data_received(b"x" * size)
        await waiting
        assert not bodies
        asking = asyncio.ensure_future(body.receive())
        await asyncio.sleep(0)
        behind: float = loop.now - bodies[connection]
        asking.cancel()
        await asyncio.wait([asking])
        return behind

    assert await send(10, 1) == 0
    assert await send(1, 2) == pytest.approx(1.9)
    assert await send(1, 2) == pytest.approx(3.8)
    assert await send(15, 0.5) == pytest.approx(2.8)
    assert await send(900, 10) == 0


async def test_continue_is_said_once_and_only_where_it_is_asked_for() -> None:
    connection = Connection()
    body = body_of(connection, "Content-Length: 2", "Expect: 100-continue")
    assert body.owes_continue
    for data in (b"a", b"b"):
        waiting = asyncio.ensure_future(body.receive())
        await asyncio.sleep(0)
        assert connection.notes == ["HTTP/1.1 100 Continue\r\n\r\n"]
        body.data_received(data)
        await waiting
    assert not body_of(connection, "Expect: 100-continue").owes_continue


async def test_receive_waits_in_one_place_at_a_time() -> None:
    body = body_of(Connection(), "Content-Length: 2")
    waiting = asyncio.ensure_future(body.receive())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="already being awaited"):
        await body.receive()
    waiting.cancel()
    again = asyncio.ensure_future(body.receive())  # in the place of the one that was cancelled
    await asyncio.sleep(0)
    body.data_received(b"a")
    assert await again == part(b"a")


async def test_small_chunks_are_kept_as_one_part() -> None:
    body = body_of(Connection(), "Transfer-Encoding: chunked")
    body.data_received(b"1\r\na\r\n" * 1_000 + b"0\r\n\r\n")
    assert len(body._parts) == 1
    assert await body.receive() == part(b"a" * 1_000, more=False)
