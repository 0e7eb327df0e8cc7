"""The benchmark's own parts: does it count what comes, and notice what does not?"""

import importlib.util
import os
import random
import socket
import subprocess
import sys
import threading

import pytest

from benchmarks import broadcasts, download
from benchmarks.contestants import ROOT, everyone
from benchmarks.download import MIB, Count, Lines, read_all
from benchmarks.jobs import chat
from benchmarks.load import Crowd, Tally, message
from benchmarks.plan import Measurement
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


@pytest.mark.skipif(
    not importlib.util.find_spec("psutil"), reason="benchmarks/requirements.txt is not installed"
)
def test_the_command_measures_our_server() -> None:
    command = [sys.executable, "-m", "benchmarks", "--short", "--contestants", "ours"]
    jobs = ["--jobs", "websocket", "sse", "slow", "token"]
    small = [*jobs, "--sizes", "20", "--seconds", "0.2"]
    env = {**os.environ, "PYTHONWARNINGS": "default"}
    done = subprocess.run([*command, *small], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WebSocket fan-out to 20" in done.stdout
    assert "First token: from the provider to the client" in done.stdout
    assert "nothing lost, nothing twice" in done.stdout


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
            body = request.partition(b"\r\n\r\n")[2]
            for peer, copies in zip(peers, self.copies, strict=True):
                peer.sendall(frame(body) * copies)
            publisher.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        for sock in [self.listener, publisher, *peers]:
            sock.close()


@pytest.mark.parametrize(
    ("copies", "is_clean"),
    [([1, 1, 1], True), ([1, 0, 1], False), ([1, 1, 2], False), ([2, 0, 1], False)],
    ids=["all", "one lost", "one twice", "one twice for another"],
)
def test_a_loss_is_noticed(
    monkeypatch: pytest.MonkeyPatch, copies: list[int], is_clean: bool
) -> None:
    monkeypatch.setattr(broadcasts, "STALL_SECONDS", 0.2)
    server = Careless(copies)
    server.start()
    with Crowd(server.port, WebSocketParser) as crowd:
        crowd.open(websocket_request("127.0.0.1", "/") for _ in copies)
        with broadcasts.Broadcaster(crowd, "/") as broadcaster:
            result = broadcaster.run(0, at_least=2, warm_up=1)
    server.join()
    report = Report()
    report.add(Measurement("Fan-out", "Careless", result.rate, "deliveries/s", tally=result.tally))
    assert report.is_clean == is_clean
    assert ("\033[31m" in report.table(color=True)) != is_clean


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


def rows(count: int) -> bytes:
    return b"".join(b'{"id":%d,"name":"n"}\n' % number for number in range(1, count + 1))


@pytest.mark.parametrize(
    ("body", "ended", "lost", "strange"),
    [
        (rows(500), True, 0, 0),
        (rows(500), False, 1, 0),
        (rows(499), True, 1, 1),
        (rows(500)[:-1], True, 1, 0),
        (rows(501), True, -1, 1),
        (rows(499) + b'{"id":500}\n', True, 0, 1),
        (rows(499) + b"{\n", True, 0, 1),
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
    answer = STREAM + chunk(rows(400)) + chunk(rows(500)[len(rows(400)) :]) + b"0\r\n\r\n"
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
