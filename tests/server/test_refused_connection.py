"""Connections beyond `max_connections`: who is told what, and what they can hold."""

import re
import select
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from realtime.server.timeouts import MAX_LINGERING

from ..support.attempts import three_tries
from .support import Worker, eventually

Start = Callable[..., Worker]
EVENT_STREAM = "Accept: text/event-stream"


@pytest.fixture
def full(start: Start) -> Iterator[Worker]:
    """A server whose one place is taken."""
    worker = start("--max-connections", "1")
    with worker.client() as client:
        client.request("/hello")
        client.response()
        yield worker


def test_an_event_source_is_told_to_come_back(full: Worker) -> None:
    delays = set()
    for _ in range(5):
        with full.client() as client:
            client.request("/sse", EVENT_STREAM)
            response = client.response()
            assert (response.status, response.headers["content-type"]) == (200, "text/event-stream")
            assert response.headers["cache-control"] == "no-store"
            found = re.fullmatch(rb"retry: (\d+)\n", response.body)
            assert found
            delays.add(int(found[1]))
            assert client.rest() == b""
    assert len(delays) > 1, "not all at once"
    assert all(1_000 <= delay <= 5_000 for delay in delays)


def test_others_are_refused(full: Worker) -> None:
    for method, headers in (
        ("GET", ["Accept: text/html"]),
        ("POST", [EVENT_STREAM]),
        ("GET", ["Upgrade: websocket", "Connection: Upgrade"]),
    ):
        with full.client() as client:
            client.request("/hello", *headers, method=method)
            response = client.response()
            assert (response.status, response.headers["retry-after"]) == (503, "5")
            assert client.rest() == b""
    with full.client() as client:
        client.send(b"nonsense\r\n\r\n")
        assert client.response().status == 400


def test_a_stranger_that_sends_no_head_is_refused_and_holds_no_place(start: Start) -> None:
    worker = start("--max-connections", "1")
    with worker.client() as stranger, worker.client() as mute:
        stranger.request("/hello", "Connection: close")
        assert stranger.response().body == b"hello"
        mute.send(b"GET / HTTP/1.1\r\n")
        eventually(lambda: worker.get("/hello") == b"hello")
        assert mute.response().status == 503


def test_silent_strangers_take_no_more_than_their_number_of_descriptors(full: Worker) -> None:
    def come() -> None:
        with ExitStack() as stack:
            mute = [stack.enter_context(full.client()) for _ in range(MAX_LINGERING)]
            with full.client() as last:
                assert last.response().status == 503
                assert select.select([client.sock for client in mute], [], [], 0)[0] == []
            for client in mute:
                assert client.response().status == 503

    three_tries(come)
