"""The port of the loopback that tells the metrics to whoever is on this host."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest

from realtime.metrics import loopback_port
from realtime.metrics.exposition import CONTENT_TYPE
from realtime.metrics.loopback_port import LoopbackPort


@pytest.fixture
async def port() -> AsyncIterator[int]:
    listening = LoopbackPort(0)
    serving = asyncio.create_task(listening.serve())
    await asyncio.sleep(0)
    yield listening.port
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def test_it_tells_metrics_and_nothing_else(port):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answer = await client.get("/metrics?x=1")
        assert (answer.status_code, answer.headers["content-type"]) == (200, CONTENT_TYPE)
        assert "# TYPE realtime_workers gauge" in answer.text
        head = await client.head("/metrics")
        assert (head.status_code, head.text) == (200, "")
        assert (await client.get("/")).status_code == 404
        assert (await client.post("/metrics")).status_code == 405
        for host, status in (("localhost", 200), ("evil.example:80", 403), ("127.0.0.1.x", 403)):
            answer = await client.get("/metrics", headers={"Host": host})
            assert answer.status_code == status


async def test_what_can_not_be_read_is_503(port, monkeypatch):
    def fail() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(loopback_port, "read", fail)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/metrics")
    assert answer.status_code == 503


@pytest.mark.parametrize("sent", [b"", b"GET /metrics", b"x" * 20_000, b"\xff\0\r\n\r\n"])
async def test_what_is_no_request_ends(port, sent, monkeypatch):
    monkeypatch.setattr(loopback_port, "REQUEST_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    with contextlib.suppress(ConnectionResetError):
        assert b" 200 " not in await asyncio.wait_for(reader.read(), 20)
    writer.close()


async def test_there_are_so_many_at_once(port, monkeypatch):
    monkeypatch.setattr(loopback_port, "MAX_CLIENTS", 1)
    _, waiting = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.sleep(0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await asyncio.wait_for(reader.read(), 20) == b""
    for each in (waiting, writer):
        each.close()


async def test_who_does_not_read_is_cut_off(monkeypatch):
    size = 50_000_000  # more than the kernel takes
    monkeypatch.setattr(loopback_port, "REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(loopback_port, "read", dict)
    monkeypatch.setattr(loopback_port, "render", lambda totals: "x" * size)
    listening = LoopbackPort(0)
    serving = asyncio.create_task(listening.serve())
    reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    await reader.readline()
    async with asyncio.timeout(30):
        while listening._clients:
            await asyncio.sleep(0.05)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(size)
    writer.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
