"""Each limit is met over a real socket, and can be set."""

import argparse
import select
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest

from realtime.server.limits import Limits, add_arguments, from_environment, from_options

from ..support.attempts import three_tries
from ..support.streaming import open_files
from .support import Worker, eventually, frame

Start = Callable[..., Worker]


def parse(*words: str) -> Limits:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return from_options(parser.parse_args(list(words)))


def test_defaults_options_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse() == Limits()
    monkeypatch.setenv("REALTIME_MAX_CONNECTIONS", "7")
    monkeypatch.setenv("REALTIME_DRAIN_WINDOW", "0.5")
    assert parse().max_connections == 7
    assert parse("--max-connections", "9").max_connections == 9
    assert parse().drain_window == 0.5
    expected = Limits(max_connections=7, drain_window=0.5, blocking_seconds=0.1)
    assert from_environment(blocking_seconds=0.1) == expected


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--header-timeout", "-1"),
        ("--body-timeout", "0"),
        ("--stall-timeout", "0"),
        ("--drain-window", "nan"),
        ("--max-connections", "0"),
        ("--receive-messages", "0"),
        ("--request-threads", "0"),
        ("--retry-min", "-1"),
    ],
)
def test_what_a_limit_can_not_be(
    option: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(option, value)
    monkeypatch.setenv("REALTIME_" + option.removeprefix("--").replace("-", "_").upper(), value)
    with pytest.raises(SystemExit):
        parse()
    assert capsys.readouterr().err.count(f"argument {option}: it takes a ") == 2


def test_every_limit_says_what_happens() -> None:
    assert all(len(each.metadata["help"]) > 20 for each in fields(Limits))


def test_connections(start: Start) -> None:
    worker = start("--max-connections", "2")
    clients = [worker.client(), worker.client()]
    for client in clients:
        client.request("/hello")
        client.response()
    with worker.client() as third:
        third.request("/hello")
        response = third.response()
        assert response.status == 503
        assert response.headers["retry-after"] == "5"
        assert third.rest() == b""
    clients.pop().close()
    eventually(lambda: worker.get("/hello") == b"hello")  # once the worker has seen it leave
    clients.pop().close()


def test_header_time(start: Start) -> None:
    worker = start("--header-timeout", "0.5")

    def send_slowly() -> None:
        with worker.client() as slow, worker.client() as mute:
            began = time.monotonic()
            slow.send(b"GET / HTTP/1.1\r\nHost: t\r\n")
            for _ in range(5):
                time.sleep(0.05)
                slow.send(b"X: y\r\n")
            assert slow.response().status == 408
            assert mute.rest() == b""
            assert time.monotonic() - began < 5

    three_tries(send_slowly)


def test_keep_alive_time(start: Start) -> None:
    worker = start("--keep-alive-timeout", "0.3")
    with worker.client() as client:
        client.request("/hello")
        client.response()
        assert client.rest() == b""


def test_body_time(start: Start) -> None:
    worker = start("--body-timeout", "0.4")
    with worker.client() as client:
        began = time.monotonic()
        client.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc")
        assert client.rest() == b""
        assert 0.2 < time.monotonic() - began < 20


CHUNKED_HEAD = b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_minimum_rate_of_what_has_begun(start: Start) -> None:
    worker = start("--body-timeout", "1", "--ping-interval", "1")
    head = b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n"
    with worker.client() as body, worker.client() as frames, worker.client() as fragments:
        body.send(head)
        frames.upgrade(data=frame(2, b"", length=1000))
        fragments.upgrade(data=frame(1, b"a", fin=False))
        clients = {body: b"x", frames: b"x", fragments: frame(0, b"x", fin=False)}
        begun = time.monotonic()
        ended = set()
        while len(ended) < 3:
            assert time.monotonic() < begun + 20
            time.sleep(0.1)
            for client in clients.keys() - ended:
                with suppress(OSError):
                    client.send(clients[client])
                if select.select([client.sock], [], [], 0)[0]:
                    ended.add(client)
        assert time.monotonic() > begun + 0.9
        assert body.rest() == b""
        for client in (frames, fragments):
            assert client.frame() == (0x88, b"\x03\xf0The message did not arrive in time")


def test_body_size_by_its_length(start: Start) -> None:
    worker = start("--max-body-size", "1000")
    with worker.client() as client:
        client.request("/echo", method="POST", body=b"x" * 1_000)
        assert client.response().body == b"x" * 1_000
        client.send(b"POST /slowread HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n")
        client.send(b"Content-Length: 1001\r\n\r\n")
        response = client.response()
        assert (response.status, response.headers["connection"]) == (413, "close")
        assert client.rest() == b""
    assert worker.status()["events"] == [], "the application must not have been asked"


def test_body_size_in_chunks(start: Start) -> None:
    worker = start("--max-body-size", "1000")
    with worker.client() as client:
        client.send(CHUNKED_HEAD + b"3e8\r\n" + b"x" * 1_000 + b"\r\n0\r\n\r\n")
        assert client.response().body == b"x" * 1_000
        client.send(CHUNKED_HEAD + b"3e8\r\n" + b"x" * 1_000 + b"\r\n")
        client.send(b"1\r\n")
        response = client.response()
        assert (response.status, response.headers["connection"]) == (413, "close")
        assert client.rest() == b""
    worker.wait_for("disconnect while reading")
    eventually(lambda: '"POST /echo" 413' in worker.text)  # in the access log too


def test_a_body_for_no_url_does_not_fill_the_disk(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django keeps a body in a file before it looks at the URL."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    worker = start(app="tests.server.django_apps")
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"

    def kept() -> bool:
        return open_files(worker.process.pid, f"{tmp_path}/") > 0

    with worker.client() as client:
        client.send(CHUNKED_HEAD)
        for _ in range(8):
            client.send(chunk)
        eventually(kept)
        for _ in range(24):
            client.send(chunk)
        client.send(b"1\r\n")  # more than 32 MiB
        assert client.response().status == 413
        eventually(lambda: not kept())
    assert list(tmp_path.iterdir()) == []


def test_a_body_too_long_ends_a_response_that_has_begun(start: Start) -> None:
    worker = start("--max-body-size", "1000")
    with worker.client() as client:
        client.send(b"POST /firehose HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.exactly(10_000)
        client.send(b"3e9\r\n")
        assert not client.rest().endswith(b"0\r\n\r\n")
    worker.wait_for("firehose finally")


def test_lines(start: Start) -> None:
    worker = start("--max-line-bytes", "100", "--max-target-bytes", "50", "--max-headers", "3")
    for line, headers, status in (
        ("/hello", ["X: " + "y" * 97], 200),
        ("/hello", ["X: " + "y" * 98], 431),
        ("/hello?" + "y" * 30, [], 200),
        ("/hello?" + "y" * 31, [], 414),
        ("/hello", ["X: y", "Y: z"], 200),
        ("/hello", ["X: y", "Y: z", "Z: a"], 431),
    ):
        with worker.client() as client:
            client.request(line, *headers)
            assert client.response().status == status, (line, headers)


def test_a_slow_application_does_not_count_as_a_slow_body(start: Start) -> None:
    worker = start("--body-timeout", "0.3")
    with worker.client() as client:
        client.request("/slow?wait=1.0")
        assert client.response().body == b"slow"


def test_stalled_clients(start: Start) -> None:
    worker = start("--stall-timeout", "0.5")
    with worker.client(receive_buffer=4_096) as client:
        client.request("/firehose?mb=1000")
        client.exactly(100)
        eventually(lambda: "firehose finally" in worker.status()["events"])


def test_http_timeout(start: Start) -> None:
    worker = start("--http-timeout", "1")
    with worker.client() as client:
        client.request("/slow")
        assert client.response().status == 503
    with worker.client() as client:
        client.request("/handler?silent=1")
        client.until(b"\r\n\r\n")
        assert client.rest() == b""
        worker.wait_for("view ended")


def test_websocket_sizes(start: Start) -> None:
    worker = start("--websocket-max-message-size", "10", "--websocket-max-frame-size", "5")
    from .support import frame

    with worker.client() as client:
        client.upgrade()
        client.send(frame(1, b"12345") + frame(1, b"1234", fin=False) + frame(0, b"12345"))
        assert client.frame() == (0x81, b"12345")
        assert client.frame() == (0x81, b"123412345")
        client.send(frame(1, b"123456"))
        assert client.closed() == 1009


def test_each_limit_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "server.md").read_text()
    for each in fields(Limits):
        assert f"| `{each.name}` | {each.default} |" in page, f"docs/server.md lacks {each.name}"
