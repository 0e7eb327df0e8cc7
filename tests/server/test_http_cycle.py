"""Applications over real sockets: their responses, their errors, and clients that leave."""

import time
from collections.abc import Callable

import pytest

from ..support.attempts import three_tries
from .support import Worker

Start = Callable[..., Worker]

MB = 1_000_000


def test_head_and_statuses_without_a_body(shared: Worker) -> None:
    with shared.client() as client:
        client.request("/hello", method="HEAD")
        assert client.response(head=True).headers["content-length"] == "5"
        for status in (204, 304, 404):
            client.request(f"/status?status={status}")
            assert client.response().status == status


@pytest.mark.parametrize("path", ["clock", "tiny"])
def test_head_of_an_endless_response_is_done_with_its_head(worker: Worker, path: str) -> None:
    with worker.client() as client:
        client.request(f"/{path}", method="HEAD")
        assert client.response(head=True).status == 200
        client.request("/hello")
        assert client.response().body == b"hello"
    worker.wait_for(f"{path} finally")
    assert "clock ticked" not in worker.status()["events"], "its source has been started"


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


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/error", "application: boom"),
        ("/stray", "application: stray"),
        ("/silent", "The application returned before its response was complete: /silent"),
        ("/badheader", "A header contains CR, LF or NUL."),
        ("/twolengths", "Content-Length is b'1', or is there twice."),
        ("/status?status=101", "101 is not the status of a final response."),
        ("/text", "A body is bytes, not str."),
        ("/lying?size=15", "The body is longer than its Content-Length."),
    ],
)
def test_what_can_not_be_sent_is_answered_with_500_and_logged(
    worker: Worker, path: str, error: str
) -> None:
    worker.expected = [error]
    with worker.client() as client:
        client.request(path)
        response = client.response()
        assert (response.status, response.body) == (500, b"Internal server error.\n")
        assert response.headers["connection"] == "close"
        assert client.rest() == b""
    assert error in worker.text


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/latererror", "application: late"),
        ("/unfinished", "The application returned before its response was complete: /unfinished"),
    ],
)
def test_a_response_that_breaks_off_is_not_ended(worker: Worker, path: str, error: str) -> None:
    worker.expected = [error]
    with worker.client() as client:
        client.request(path)
        answer = client.rest()
        assert b"begun" in answer
        assert not answer.endswith(b"0\r\n\r\n"), "a client must see that it is incomplete"
    assert error in worker.text


def test_a_response_shorter_than_its_length_ends_the_connection(worker: Worker) -> None:
    worker.expected = ["A response was shorter than its Content-Length."]
    with worker.client() as client:
        client.request("/lying?size=5")
        assert client.rest().endswith(b"\r\n\r\nzzzzz")


def test_secrets_of_an_errors_text_are_not_logged(worker: Worker) -> None:
    worker.expected = ["application: boom"]
    with worker.client() as client:
        client.request("/error")
        client.response()
    assert "verysecret" not in worker.text
    assert "token=[redacted]&x=1" in worker.text


def test_a_request_that_has_ended_is_not_kept_for_its_time_limit(start: Start) -> None:
    worker = start("--http-timeout", "60")
    headers = ["X-Filler: " + "x" * 6_000] * 10
    with worker.client() as client:
        for count in range(600):
            client.request("/hello", *headers)
            assert client.response().status == 200
            if count == 100:
                before = worker.rss()
    assert worker.rss() - before < 8_000_000


def test_a_client_that_does_not_read_pauses_the_generator(worker: Worker) -> None:
    worker.get("/hello")
    before = worker.rss()
    with worker.client(receive_buffer=65_536) as client:
        client.request("/firehose?mb=1000")
        client.exactly(1_000)
        time.sleep(1.0)
        assert worker.rss() - before < 8 * MB
        assert worker.get("/hello") == b"hello", "others are served meanwhile"
    worker.wait_for("firehose finally")


def test_a_client_that_reads_gets_everything(worker: Worker) -> None:
    with worker.client() as client:
        client.request("/firehose?mb=6")
        assert len(client.response().body) == 6 * 16 * 65_536


@pytest.mark.parametrize("path", ["slow", "sse", "deaf", "tiny", "firehose"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_within_a_second_of_the_client_leaving_the_finally_has_run(
    worker: Worker, path: str, how: str
) -> None:
    def leave() -> None:
        assert worker.reset(15)
        client = worker.client()
        client.request(f"/{path}")
        if path != "slow":
            client.exactly(100)
        else:
            worker.wait_for("slow started")
        getattr(client, how)()
        assert worker.wait_for(f"{path} finally") < 1.0

    three_tries(leave)


def test_what_an_application_leaves_behind_ends_when_it_sends(worker: Worker) -> None:
    with worker.client() as client:
        client.request("/handler?leaves=1")
        client.until(b": hi\n\n")
    worker.wait_for("view ended", 20.0)
