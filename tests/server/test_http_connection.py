"""HTTP over real sockets: framing, pipelining, slow and vanishing clients, backpressure."""

import json
import time

import pytest

from .support import Worker, eventually

MB = 1_000_000


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
        assert client.response().body == b"ignored"
        client.send(b"x" * 100_000)
        assert client.rest() == b""


def test_head_and_statuses_without_a_body(shared: Worker) -> None:
    with shared.client() as client:
        client.request("/hello", method="HEAD")
        assert client.response(head=True).headers["content-length"] == "5"
        for status in (204, 304, 404):
            client.request(f"/status?status={status}")
            assert client.response().status == status


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


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_the_head_does_not_wait_for_the_first_of_the_body(shared: Worker, version: bytes) -> None:
    with shared.client() as client, shared.client() as other:
        client.send(b"GET /late HTTP/%b\r\nHost: t\r\n\r\n" % version)
        head = client.head()
        assert head.status == 200
        assert (head.headers.get("transfer-encoding") == "chunked") == (version == b"1.1")
        other.request("/late?go")
        assert other.response().body == b"gone"
        assert b"data: 1\n\n" in client.until(b"data: 1\n\n")


def test_the_scope_is_daphnes(shared: Worker) -> None:
    with shared.client() as client:
        client.request("/scope/a%20b%C3%BC?x=1", "X_Evil: 1", "X-Two: a", "X-Two: b")
        scope = json.loads(client.response().body)
    assert scope["path"] == "/scope/a bü"
    assert scope["raw_path"] == "/scope/a%20b%C3%BC"
    assert scope["query_string"] == "x=1"
    assert scope["headers"] == [["host", "test"], ["x-two", "a"], ["x-two", "b"]]
    assert (scope["http_version"], scope["scheme"], scope["method"]) == ("1.1", "http", "GET")
    assert scope["server"] == list(shared.address)


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


def test_errors_of_the_application(worker: Worker) -> None:
    worker.expected = [
        "application: boom",
        "application: A header contains CR, LF or NUL.",
        "application: late",
        "A response was shorter than its Content-Length.",
        "The body is longer than its Content-Length.",
    ]
    for path, status in (("/error", 500), ("/silent", 500), ("/badheader", 500)):
        with worker.client() as client:
            client.request(path)
            assert client.response().status == status
    with worker.client() as client:
        client.request("/latererror")
        answer = client.rest()
        assert b"begun" in answer
        assert not answer.endswith(b"0\r\n\r\n"), "a client must see that it is incomplete"
    for size in (5, 15):
        with worker.client() as client:
            client.request(f"/lying?size={size}")
            assert len(client.rest().partition(b"\r\n\r\n")[2]) < 10
    assert "verysecret" not in worker.text
    assert "token=[redacted]&x=1" in worker.text


def test_a_client_that_does_not_read_pauses_the_generator(worker: Worker) -> None:
    worker.get("/hello")
    before = worker.rss()
    with worker.client(receive_buffer=65_536) as client:
        client.request("/firehose?mb=1000")
        client.exactly(1_000)
        time.sleep(1.0)
        assert worker.rss() - before < 8 * MB
        assert worker.get("/hello") == b"hello", "others are served meanwhile"
    assert worker.wait_for("firehose finally") < 1.0


def test_a_client_that_reads_gets_everything(worker: Worker) -> None:
    with worker.client() as client:
        client.request("/firehose?mb=6")
        assert len(client.response().body) == 6 * 16 * 65_536


def test_a_body_is_not_read_before_the_application_wants_it(worker: Worker) -> None:
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


@pytest.mark.parametrize("path", ["slow", "sse", "deaf", "tiny", "firehose"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_within_a_second_of_the_client_leaving_the_finally_has_run(
    worker: Worker, path: str, how: str
) -> None:
    client = worker.client()
    client.request(f"/{path}")
    if path != "slow":
        client.exactly(100)
    else:
        worker.wait_for("slow started")
    getattr(client, how)()
    assert worker.wait_for(f"{path} finally", 1.0) < 1.0


def test_a_client_that_closes_its_side_still_gets_a_quick_answer(shared: Worker) -> None:
    with shared.client() as client:
        client.request("/slow?wait=0.1")
        client.sock.shutdown(1)
        assert client.response().body == b"slow"
        assert client.rest() == b""


def test_a_client_that_closes_its_side_and_reads_on_gets_a_long_answer(shared: Worker) -> None:
    with shared.client(receive_buffer=65_536) as client:
        client.request("/firehose?mb=6")
        client.sock.shutdown(1)
        time.sleep(1)
        assert len(client.response().body) == 6 * 16 * 65_536


def test_nothing_is_served_behind_a_refusal_that_is_still_going_out(shared: Worker) -> None:
    with shared.client(receive_buffer=4_096) as client:
        client.request("/firehose?mb=3", "Connection: close")
        client.exactly(100)
        client.request("/hello")
        assert not client.rest().endswith(b"hello")


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
    eventually(lambda: worker.text.count('"POST /slowread"') == 1, 2.0)


def test_requests_behind_a_stream_do_not_pile_up(worker: Worker) -> None:
    before = worker.rss()
    with worker.client() as client:
        client.request("/sse")
        client.until(b": hi\n\n")
        client.sock.settimeout(0.5)
        pipelined = b"GET /hello HTTP/1.1\r\nHost: t\r\n\r\n" * 100_000
        with pytest.raises(TimeoutError):
            client.send(pipelined * 10)
        assert worker.rss() - before < 8 * MB


def test_a_client_that_leaves_behind_requests_that_are_not_read(worker: Worker) -> None:
    with worker.client() as client:
        client.request("/sse")
        client.until(b": hi\n\n")
        client.send(b"GET /hello HTTP/1.1\r\nHost: t\r\n\r\n" * 2_500)
        time.sleep(0.1)
    worker.wait_for("sse finally", 2.0)
