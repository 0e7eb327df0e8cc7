"""The fast lane: when it opens, what it takes, and when it is closed."""

import json
from typing import Any

import pytest

from .support import Client, Worker, frame


def opened(worker: Worker, client: Client, path: str, *headers: str, method: str = "GET") -> str:
    """Ask for the stream; the framing that its application saw."""
    client.request(path, *headers, method=method)
    return str(lane_event(worker))


def lane_event(worker: Worker) -> Any:
    for _ in range(100):
        events = [e for e in worker.status()["events"] if e.startswith("lane")]
        if events:
            return events[-1].removeprefix("lane ")
    raise AssertionError("no lane")


def broadcast(worker: Worker, size: int, times: int = 1) -> int:
    return int(worker.get(f"/broadcast?size={size}&times={times}"))


def test_chunked_streams(worker: Worker) -> None:
    with worker.client() as client:
        assert opened(worker, client, "/lane") == "chunked"
        assert broadcast(worker, 20) == 1
        client.until(b": hi\n\n\r\n")
        assert client.until(b"\n\n\r\n") == b"1c\r\ndata: " + b"d" * 20 + b"\n\n\r\n"
    worker.wait_for("lane after None False")


def test_http_1_0_streams(worker: Worker) -> None:
    with worker.client() as client:
        client.send(b"GET /lane HTTP/1.0\r\n\r\n")
        assert lane_event(worker) == "identity"
        assert broadcast(worker, 3) == 1
        client.until(b": hi\n\n")
        assert client.until(b"\n\n") == b"data: ddd\n\n"


def test_websockets(worker: Worker) -> None:
    with worker.client() as client:
        client.upgrade("/lane")
        assert lane_event(worker) == "None websocket"
        assert broadcast(worker, 200) == 1
        assert client.frame() == (0x82, b"data: " + b"d" * 200 + b"\n\n")
        client.send(frame(8, b"\x03\xe8"))
        assert client.closed() == 1000
    worker.wait_for("lane after None False")


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/lane?arm=other", "GET"),
        ("/lane?encoding=gzip", "GET"),
        ("/lane?length=1000", "GET"),
        ("/lane", "HEAD"),
    ],
)
def test_it_stays_closed_when_something_rewrites_the_body(
    worker: Worker, path: str, method: str
) -> None:
    with worker.client() as client:
        assert opened(worker, client, path, method=method) == "None"
        assert broadcast(worker, 10) == 0


def test_a_slow_subscriber_costs_one_partial_payload_and_comes_back(worker: Worker) -> None:
    before = worker.rss()
    with worker.client(receive_buffer=8_192) as client:
        assert opened(worker, client, "/lane") == "chunked"
        taken = broadcast(worker, 60_000, 400)
        assert 0 < taken < 400
        assert broadcast(worker, 10) == 0, "something is pending"
        assert worker.rss() - before < 8_000_000
        client.until(b": hi\n\n\r\n")
        expected = b"eaa0\r\ndata: ".replace(b"eaa0", b"%x" % 60_008) + b"d" * 60_000 + b"\n\n\r\n"
        for _ in range(taken):
            assert client.exactly(len(expected)) == expected
        assert broadcast(worker, 10) == 1
        assert client.until(b"\n\n\r\n") == b"12\r\ndata: dddddddddd\n\n\r\n"


def test_a_dead_subscriber_is_a_false(worker: Worker) -> None:
    clients = [worker.client() for _ in range(3)]
    for client in clients:
        client.upgrade("/lane")
    worker.wait_for("lane None websocket")
    clients[0].reset()
    assert broadcast(worker, 10) in (2, 3)
    worker.wait_for("lane after None False")
    assert broadcast(worker, 200) == 2
    for client in clients[1:]:
        client.close()


def test_a_connection_s_next_stream_has_a_lane_of_its_own(worker: Worker) -> None:
    with worker.client() as client:
        client.request("/scope")
        extensions = json.loads(client.response().body)["extensions"]
        assert "realtime.lane" in extensions
        assert opened(worker, client, "/lane") == "chunked"
