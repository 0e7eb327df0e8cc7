"""SIGTERM with everything open: who is told what, and what has run when the process is gone."""

import os
import re
import time
from collections.abc import Callable

import pytest

from ..support.attempts import three_tries
from .support import EXIT_SECONDS, KEY, Worker, eventually, frame

Start = Callable[..., Worker]


def test_an_idle_worker_exits_at_once(worker: Worker) -> None:
    with worker.client() as idle:
        idle.request("/hello")
        assert idle.response().body == b"hello"
        began = time.monotonic()
        worker.terminate()
        assert worker.process.wait(EXIT_SECONDS) == 0
        assert idle.rest() == b""
    assert time.monotonic() - began < EXIT_SECONDS


def test_websockets_get_1012_and_their_applications_time(worker: Worker) -> None:
    with worker.client() as client:
        client.upgrade("/farewell")
        worker.terminate()
        first, payload = client.frame()
        assert (first, payload[:2]) == (0x88, (1012).to_bytes(2, "big"))
        assert b"restarting" in payload
        client.send(frame(8, payload[:2]))
        assert client.rest() == b""
    assert worker.process.wait(EXIT_SECONDS) == 0
    assert worker.log.read_text() == "farewell websocket.disconnect 1012\n"


def test_event_streams_end_with_a_retry_of_their_own(worker: Worker) -> None:
    clients = [worker.client() for _ in range(4)]
    for client in clients:
        client.request("/sse?linger=0.1")
        client.until(b": hi\n\n\r\n")
    worker.terminate()
    delays = set()
    for client in clients:
        found = re.fullmatch(rb"([0-9a-f]+)\r\nretry: (\d+)\n\r\n0\r\n\r\n", client.rest())
        assert found, "one whole event and the last chunk"
        delays.add(int(found[2]))
        assert 1_000 <= int(found[2]) <= 5_000
        client.close()
    assert len(delays) > 1
    assert worker.process.wait(EXIT_SECONDS) == 0


@pytest.mark.parametrize("path", ["/sse", "/handler?silent=1", "/lane"])
def test_an_event_stream_that_comes_meanwhile_is_told_to_come_back(start: Start, path: str) -> None:
    worker = start("--drain-grace", str(2 * EXIT_SECONDS))
    with worker.client() as kept, worker.client() as slow:
        kept.request("/hello")
        kept.response()
        kept.send(b"GET ")  # idle, it would soon be closed
        slow.request("/slow?wait=1.5")
        worker.wait_for("slow started")
        worker.terminate()
        eventually(lambda: refused(worker))
        kept.send(f"{path} HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\n\r\n".encode())
        head, _, body = kept.rest().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert re.search(rb"(?:^|\n)retry: \d+\n\r\n0\r\n\r\n$", body), body
        assert slow.response().body == b"slow", "others are answered"
    assert worker.process.wait(EXIT_SECONDS) == 0


def test_an_event_stream_that_begins_meanwhile_ends_without_an_event(worker: Worker) -> None:
    with worker.client() as client:
        client.request("/slowstream?wait=0.5")
        eventually(lambda: "slowstream" in worker.status()["running"])
        worker.terminate()
        assert re.search(rb"\r\nretry: \d+\n\r\n0\r\n\r\n$", client.rest())
    assert worker.process.wait(EXIT_SECONDS) == 0


def test_a_websocket_that_comes_meanwhile_is_told_to_come_back(worker: Worker) -> None:
    with worker.client() as kept:
        kept.request("/hello")
        kept.response()
        kept.send(b"GET ")
        worker.terminate()
        eventually(lambda: refused(worker))
        lines = ["/ws HTTP/1.1", "Host: t", "Upgrade: websocket", "Connection: Upgrade"]
        lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}", "", ""]
        kept.send("\r\n".join(lines).encode())
        response = kept.response()
        assert (response.status, response.headers["retry-after"]) == (503, "1")
    assert worker.process.wait(EXIT_SECONDS) == 0


def test_an_event_stream_is_not_cut_inside_an_event(worker: Worker) -> None:
    with worker.client() as client:
        client.request("/halfevent")
        client.until(b"data: 1\n\r\n")
        worker.terminate()
        rest = client.rest()
        assert b"data: 2\n\n" in rest
        assert rest.index(b"data: 2") < rest.index(b"retry: ")
        assert rest.endswith(b"0\r\n\r\n")
    assert worker.process.wait(EXIT_SECONDS) == 0


def test_downloads_and_slow_answers_finish(worker: Worker) -> None:
    with worker.client(receive_buffer=65_536) as download, worker.client() as slow:
        download.request("/firehose?mb=6")
        download.until(b"\r\n\r\n")
        slow.request("/slow?wait=1.5")
        worker.wait_for("slow started")
        worker.terminate()
        time.sleep(0.2)
        assert len(download.rest()) > 6 * 16 * 65_536
        assert download.buffer == b""
        response = slow.response()
        assert (response.body, response.headers["connection"]) == (b"slow", "close")
    assert worker.process.wait(EXIT_SECONDS) == 0


def test_a_draining_worker_says_so_and_accepts_nobody(worker: Worker) -> None:
    with worker.client() as kept, worker.client() as slow:
        kept.request("/hello")
        kept.response()
        slow.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\na")
        eventually(lambda: "echo" in worker.status()["running"])
        worker.terminate()
        eventually(lambda: refused(worker))
        kept.request("/events")
        response = kept.response()
        assert b'"draining": true' in response.body
        assert response.headers["connection"] == "close"
        slow.send(b"b")
        assert slow.response().body == b"ab"
    assert worker.process.wait(EXIT_SECONDS) == 0


def refused(worker: Worker) -> bool:
    try:
        worker.client().close()
    except (ConnectionRefusedError, ConnectionResetError):  # closed while this call connects
        return True
    return False


def test_what_does_not_end_is_cancelled_and_every_finally_runs(start: Start) -> None:
    worker = start("--drain-grace", "0.5")
    with worker.client() as client, worker.client() as generator:
        client.request("/slow")
        generator.request("/agen")
        generator.until(b"data: 1\n\n")
        worker.wait_for("slow started")
        worker.terminate()
        assert worker.process.wait(EXIT_SECONDS) == 0
        assert client.response().status == 503
    assert worker.log.read_text().splitlines() == ["agen task finally", "agen finally"]


def test_a_task_that_was_left_behind_is_cancelled_before_its_generator_is_closed(
    worker: Worker,
) -> None:
    assert worker.get("/background") == b"begun"
    worker.terminate()
    assert worker.process.wait(EXIT_SECONDS) == 0
    assert worker.log.read_text().splitlines() == ["generator finally", "task finally"]
    worker.check()


def test_an_armed_stream_that_ignores_its_disconnect_is_cancelled(worker: Worker) -> None:
    with worker.client() as client:
        client.request("/deaf")
        client.until(b": hi\n\n")
        worker.terminate()
        assert client.rest().endswith(b"0\r\n\r\n")
    assert worker.process.wait(EXIT_SECONDS) == 0


def test_the_window_spreads_the_ends(start: Start) -> None:
    def drain() -> None:
        worker = start("--drain-window", "0.5")
        clients = [worker.client() for _ in range(40)]
        for client in clients:
            client.upgrade()
        began = time.monotonic()
        worker.terminate()
        times = []
        for client in clients:
            client.frame()
            times.append(time.monotonic() - began)
            client.close()
        assert worker.process.wait(EXIT_SECONDS) == 0
        assert 0.3 < max(times) < 2

    three_tries(drain)


def test_a_second_signal_does_not_wait(start: Start) -> None:
    worker = start("--close-timeout", "10")
    with worker.client() as client:
        client.send(b"POST /slowread HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nx")
        worker.wait_for("part 1")
        worker.terminate()
        eventually(lambda: refused(worker))  # it has heard the first
        assert worker.process.poll() is None
        worker.terminate()
        assert worker.process.wait(EXIT_SECONDS) == 0


@pytest.mark.parametrize("first", ["SIGTERM", "the end of the parent"])
def test_two_signs_at_once_skip_no_finally(start: Start, first: str) -> None:
    """Both are there before the event loop, which is held, comes to the first one."""
    read, write = os.pipe()
    worker = start("--drain-grace", "0.5", "--parent-fd", str(read), pass_fds=(read,))
    os.close(read)
    with worker.client() as generator, worker.client() as holder:
        generator.request("/agen")
        generator.until(b"data: 1\n\n")
        holder.request("/block?seconds=1")
        time.sleep(0.3)
        if first == "SIGTERM":
            worker.terminate()
            time.sleep(0.1)
        os.close(write)
        time.sleep(0.2)
        worker.terminate()
        assert worker.process.wait(15) == 0
    assert worker.log.read_text().splitlines() == ["agen task finally", "agen finally"]
