"""HTTP over real sockets: framing, pipelining, slow and vanishing clients, backpressure."""

import time
from collections.abc import Callable

import pytest

from realtime.server.http_connection import HTTPConnection
from realtime.server.http_cycle import RequestCycle

from ..support.attempts import three_tries
from .oracles import Ours
from .support import EXIT_SECONDS, Worker

MB = 1_000_000
Start = Callable[..., Worker]
request = b"GET /%d HTTP/1.1\r\nHost: t\r\n\r\n"


def test_keep_alive_serves_one_request_after_another(shared: Worker) -> None:
    with shared.client() as client:
        for number in range(3):
            client.request("/echo", method="POST", body=b"%d" % number)
            assert client.response().body == b"%d" % number


def test_requests_in_one_packet_are_answered_in_order(shared: Worker) -> None:
    with shared.client() as client:
        one = b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\n%d"
        client.send(b"".join(one % number for number in range(9)) + b"\r\n" + one % 9)
        assert [client.response().body for _ in range(10)] == [b"%d" % n for n in range(10)]


def test_a_request_that_arrives_byte_by_byte(shared: Worker) -> None:
    with shared.client() as client:
        chunked = b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n"
        client.send(b"POST /echo HTTP/1.1\r\nHost: t\r\n" + chunked, pieces=1)
        assert client.response().body == b"abcde"
        client.request("/hello")
        assert client.response().body == b"hello"


@pytest.mark.parametrize("pieces", [0, 1])
def test_a_few_empty_lines_before_a_request_are_read_over(shared: Worker, pieces: int) -> None:
    with shared.client() as client:
        for _ in range(2):
            client.send(b"\r\n" * 8 + b"GET /hello HTTP/1.1\r\nHost: t\r\n\r\n", pieces=pieces)
            assert client.response().body == b"hello"


@pytest.mark.parametrize("lines", [b"\r\n" * 9, b"\n", b"\r", b"\r\r\n", b"\r\n\n"])
@pytest.mark.parametrize("pieces", [0, 1])
def test_other_empty_lines_are_refused(shared: Worker, lines: bytes, pieces: int) -> None:
    with shared.client() as client:
        client.send(lines + b"GET /hello HTTP/1.1\r\nHost: t\r\n\r\n", pieces=pieces)
        assert client.response().status == 400


def test_http_1_0(shared: Worker) -> None:
    with shared.client() as client:
        client.send(b"GET /chunks HTTP/1.0\r\n\r\n")
        response = client.response()
        assert response.body == b"onetwothree"
        assert response.headers["connection"] == "close"
    with shared.client() as client:
        for _ in range(2):
            client.send(b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            response = client.response()
            assert (response.headers["connection"], response.body) == ("keep-alive", b"hello")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: t\r\nX: " + b"y" * 70_000, 431),
        (b"GET / HTTP/1.1\r\nHost: t\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 431),
    ],
)
def test_a_bad_request_is_answered_and_the_connection_closed(
    shared: Worker, request_: bytes, status: int
) -> None:
    with shared.client() as client:
        client.send(request_)
        assert client.response().status == status
        assert client.rest() == b""


def test_what_follows_a_bad_request_is_not_served(shared: Worker) -> None:
    with shared.client() as client:
        smuggled = b"GET /hello HTTP/1.1\r\nHost: t\r\n\r\n"
        client.send(b"GET / HTTP/1.1\r\nHost: t\r\nContent-Length: x\r\n\r\n" + smuggled)
        assert b"hello" not in client.rest()


def test_a_client_that_closes_its_side_still_gets_a_quick_answer(shared: Worker) -> None:
    def close_its_side() -> None:
        with shared.client() as client:
            client.request("/slow?wait=0.1")
            client.sock.shutdown(1)
            assert client.response().body == b"slow"
            assert client.rest() == b""

    three_tries(close_its_side)


def test_a_client_that_closes_its_side_and_reads_on_gets_a_long_answer(shared: Worker) -> None:
    with shared.client(receive_buffer=65_536) as client:
        client.request("/firehose?mb=6")
        client.sock.shutdown(1)
        time.sleep(1)
        assert len(client.response().body) == 6 * 16 * 65_536


def test_no_request_is_served_after_a_refusal_that_is_still_being_written(shared: Worker) -> None:
    with shared.client(receive_buffer=4_096) as client:
        client.request("/firehose?mb=3", "Connection: close")
        client.exactly(100)
        client.request("/hello")
        assert not client.rest().endswith(b"hello")


def test_requests_pipelined_after_a_stream_do_not_pile_up(worker: Worker) -> None:
    before = worker.rss()
    with worker.client() as client:
        client.request("/sse")
        client.until(b": hi\n\n")
        client.sock.settimeout(0.5)
        pipelined = b"GET /hello HTTP/1.1\r\nHost: t\r\n\r\n" * 100_000
        with pytest.raises(TimeoutError):
            client.send(pipelined * 10)
        assert worker.rss() - before < 8 * MB


def test_answers_that_are_not_read_do_not_pile_up(worker: Worker) -> None:
    worker.get("/large")
    before = worker.rss()
    with worker.client(receive_buffer=4_096) as client:
        client.send(b"GET /large HTTP/1.1\r\nHost: t\r\n\r\n" * 1_000)
        time.sleep(1.0)
        assert worker.rss() - before < 8 * MB
        for _ in range(1_000):
            assert len(client.response().body) == 60_000


def test_a_client_that_is_slow_to_read_is_answered_in_full(start: Start) -> None:
    worker = start("--header-timeout", "0.3", "--keep-alive-timeout", "0.3")
    with worker.client(receive_buffer=4_096) as client:
        client.send(b"GET /firehose?mb=6 HTTP/1.1\r\nHost: t\r\n\r\n")
        client.exactly(1_000)
        time.sleep(0.2)
        client.send(b"GET /large HTTP/1.1\r\nHost: t\r\n\r\n" * 100)
        time.sleep(1.0)
        client.until(b"\r\n0\r\n\r\n")
        time.sleep(1.0)  # a part of the rest is on its way
        for _ in range(100):
            assert len(client.response().body) == 60_000


@pytest.mark.parametrize("rest", [b"", b"GET /hel", b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-"])
def test_what_has_come_whole_is_answered_after_a_half_close(shared: Worker, rest: bytes) -> None:
    def close_its_side() -> None:
        with shared.client() as client:
            client.send(b"GET /slow?wait=0.1 HTTP/1.1\r\nHost: t\r\n\r\n")
            client.send(b"GET /hello HTTP/1.1\r\nHost: t\r\n\r\n" * 2 + rest)
            client.sock.shutdown(1)
            bodies = [client.response().body for _ in range(3)]
            assert bodies == [b"slow", b"hello", b"hello"]
            assert client.rest() == b""

    three_tries(close_its_side)


def test_a_disconnect_is_noticed_with_unread_pipelined_requests(worker: Worker) -> None:
    with worker.client() as client:
        client.request("/sse")
        client.until(b": hi\n\n")
        client.send(b"GET /hello HTTP/1.1\r\nHost: t\r\n\r\n" * 2_500)
        time.sleep(0.1)
    worker.wait_for("sse finally")


def test_what_arrives_between_two_pipelined_requests_waits_for_its_turn() -> None:
    class Connection(HTTPConnection):
        """Gets its third request after the first response, before it goes on with the second."""

        late = [request % 3]

        def cycle_finished(self, cycle: RequestCycle, is_reusable: bool) -> None:
            super().cycle_finished(cycle, is_reusable)
            while self.late:
                self.data_received(self.late.pop())

    ours = Ours(connection=Connection)
    outcome = ours([request % 1 + request % 2])
    ours.close()
    assert [each.target for each in outcome.requests] == [b"/1", b"/2", b"/3"]
    assert not outcome.refused


def test_empty_lines_are_no_request(start: Start) -> None:
    worker = start("--header-timeout", "0.3")
    with worker.client() as client:
        client.send(b"\r\n")
        assert client.rest() == b"", "nothing to answer with 408"
    with worker.client() as client:
        client.request("/hello")
        client.response()
        client.send(b"\r\n")
        worker.terminate()
        assert worker.process.wait(EXIT_SECONDS) == 0
