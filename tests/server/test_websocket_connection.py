"""RFC 6455 over real sockets: what the Autobahn TestSuite asks in its sections 1 to 7 and 10.

Its runner needs Python 2. The numbers in comments are its cases.
"""

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from realtime.server.websocket_connection import MESSAGES_IN_A_ROW

from ..support.attempts import three_tries
from .support import Client, Worker, eventually, frame

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
SIZES = [0, 1, 125, 126, 127, 128, 65_535, 65_536]
READS = [0, 997]


@pytest.fixture
def client(shared: Worker) -> Iterator[Client]:
    connected = shared.client()
    assert connected.upgrade().status == 101
    yield connected
    connected.close()


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


# 1: framing


@pytest.mark.parametrize("pieces", READS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_messages_of_every_length(client: Client, opcode: int, size: int, pieces: int) -> None:
    payload = (b"*" if opcode == TEXT else b"\xfe") * size
    client.send(frame(opcode, payload), pieces)
    assert client.frame() == (0x80 | opcode, payload)


def test_a_mask_of_zeros(client: Client) -> None:
    client.send(frame(TEXT, b"plain", key=b"\0\0\0\0"))
    assert client.frame() == (0x81, b"plain")


# 2: pings and pongs


@pytest.mark.parametrize("payload", [b"", b"Hello", b"\x00\xff\xfe\xfd", b"\xfe" * 125])
@pytest.mark.parametrize("pieces", [0, 1])
def test_pings_are_answered(client: Client, payload: bytes, pieces: int) -> None:
    client.send(frame(PING, payload), pieces)
    assert client.frame() == (0x8A, payload)


def test_pings_in_one_packet_are_answered_in_order(client: Client) -> None:  # 2.10, 2.11
    client.send(b"".join(frame(PING, b"payload-%d" % n) for n in range(10)))
    assert [client.frame()[1] for _ in range(10)] == [b"payload-%d" % n for n in range(10)]


def test_a_ping_that_is_too_long(client: Client) -> None:  # 2.5
    client.send(frame(PING, b"\xfe" * 126))
    assert client.closed() == 1002


def test_unsolicited_pongs_are_ignored(client: Client) -> None:  # 2.7 to 2.9
    client.send(frame(PONG) + frame(PONG, b"unsolicited") + frame(PING, b"ping"))
    assert client.frame() == (0x8A, b"ping")


# 3: reserved bits, 4: opcodes


@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
def test_reserved_bits(client: Client, rsv: int, opcode: int) -> None:
    client.send(frame(TEXT, b"first") + frame(opcode, b"", rsv=rsv) + frame(PING))
    assert client.frame() == (0x81, b"first")
    assert client.closed() == 1002


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("pieces", [0, 1])
def test_reserved_opcodes(client: Client, opcode: int, pieces: int) -> None:
    client.send(frame(opcode, b"x"), pieces)
    assert client.closed() == 1002


def test_frames_from_a_client_are_masked(client: Client) -> None:
    client.send(frame(TEXT, b"x", masked=False))
    assert client.closed() == 1002


# 5: fragmentation


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_control_frames_are_not_fragmented(client: Client, opcode: int) -> None:  # 5.1, 5.2
    client.send(frame(opcode, b"", fin=False) + frame(0, b""))
    assert client.closed() == 1002


@pytest.mark.parametrize("pieces", [0, 1])
def test_fragments_with_a_ping_between_them(client: Client, pieces: int) -> None:  # 5.3 to 5.8
    fragments = frame(TEXT, b"fragment1", fin=False) + frame(PING, b"p") + frame(0, b"fragment2")
    client.send(fragments, pieces)
    assert client.frame() == (0x8A, b"p")
    assert client.frame() == (0x81, b"fragment1fragment2")


@pytest.mark.parametrize("fin", [True, False])
def test_nothing_to_continue(client: Client, fin: bool) -> None:  # 5.9 to 5.14
    client.send(frame(0, b"x", fin=fin) + frame(TEXT, b"Hello"))
    assert client.closed() == 1002


def test_nothing_to_continue_after_a_whole_message(client: Client) -> None:  # 5.15
    client.send(frame(TEXT, b"a", fin=False) + frame(0, b"b") + frame(0, b"c", fin=False))
    assert client.frame() == (0x81, b"ab")
    assert client.closed() == 1002


def test_a_message_inside_another(client: Client) -> None:  # 5.18
    client.send(frame(TEXT, b"fragment1", fin=False) + frame(TEXT, b"fragment2"))
    assert client.closed() == 1002


def test_many_fragments_and_pings(client: Client) -> None:  # 5.19, 5.20
    client.send(frame(TEXT, b"f1", fin=False) + frame(0, b"f2", fin=False) + frame(PING, b"1"))
    assert client.frame() == (0x8A, b"1")
    time.sleep(0.1)
    client.send(frame(0, b"f3", fin=False) + frame(PING, b"2") + frame(0, b"", fin=False))
    client.send(frame(0, b"f5"))
    assert client.frame() == (0x8A, b"2")
    assert client.frame() == (0x81, b"f1f2f3f5")


def test_empty_fragments(client: Client) -> None:  # 6.1.2, 6.1.3
    client.send(frame(TEXT, b"", fin=False) + frame(0, b"", fin=False) + frame(0, b""))
    assert client.frame() == (0x81, b"")
    client.send(frame(TEXT, b"", fin=False) + frame(0, b"middle", fin=False) + frame(0, b""))
    assert client.frame() == (0x81, b"middle")


# 6: UTF-8

VALID = [
    "Hello-µ@ßöäüàá-UTF-8!!".encode(),  # 6.2
    "κόσμε".encode(),  # 6.5
    b"\x00",  # 6.7: the first and the last of each length
    b"\xc2\x80",
    b"\xe0\xa0\x80",
    b"\xf0\x90\x80\x80",
    b"\x7f",
    b"\xdf\xbf",
    b"\xef\xbf\xbf",
    b"\xf4\x8f\xbf\xbf",  # 6.9: other boundaries
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    b"\xef\xbf\xbd",
    b"\xef\xbf\xbe",  # 6.22: non-characters
    b"\xf0\x9f\xbf\xbf",
    b"\xf4\x8f\xbf\xbe",
]
INVALID = [
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",  # 6.3
    b"\xce",  # 6.6: cut off
    b"\xce\xba\xe1\xbd",
    b"\xf8\x88\x80\x80\x80",  # 6.8: five and six bytes
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xf7\xbf\xbf\xbf",  # 6.10, 6.11: beyond the last
    b"\xf4\x90\x80\x80",
    b"\x80",  # 6.12: continuation bytes alone
    b"\x80\xbf\x80\xbf\x80\xbf",
    bytes(range(0x80, 0xC0)),
    b"".join(bytes((n, 0x20)) for n in range(0xC0, 0xE0)),  # 6.13: starts alone
    b"\xe0 \xe1 ",
    b"\xc0",  # 6.14
    b"\xe0\x80",
    b"\xdf",
    b"\xfe",  # 6.16
    b"\xff",
    b"\xc0\xaf",  # 6.17 to 6.19: overlong
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xc1\xbf",
    b"\xe0\x9f\xbf",
    b"\xed\xa0\x80",  # 6.20, 6.21: surrogates
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
]


def split(payload: bytes, size: int) -> bytes:
    """A text message in fragments of so many bytes."""
    parts = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    return b"".join(
        frame(TEXT if not n else 0, part, fin=n == len(parts) - 1) for n, part in enumerate(parts)
    )


@pytest.mark.parametrize("size", [100, 1])
@pytest.mark.parametrize("payload", VALID)
def test_valid_text(client: Client, payload: bytes, size: int) -> None:
    client.send(split(payload, size))
    assert client.frame() == (0x81, payload)


@pytest.mark.parametrize("size", [100, 1])
@pytest.mark.parametrize("payload", INVALID)
def test_invalid_text(client: Client, payload: bytes, size: int) -> None:
    client.send(split(payload, size))
    assert client.closed() == 1007


def test_invalid_text_fails_before_the_message_is_complete(client: Client) -> None:  # 6.4
    good = "κόσμε".encode()
    client.send(frame(TEXT, good, fin=False))
    time.sleep(0.05)
    client.send(frame(0, b"\xf4\x90", fin=False))
    assert client.closed() == 1007


def test_invalid_text_fails_before_the_frame_is_complete(client: Client) -> None:  # 6.4.3
    client.send(frame(TEXT, "κόσμε".encode() + b"\xf4\x90\x80\x80edited")[: 6 + 13])
    assert client.closed() == 1007


# 7: closing


def test_a_message_before_the_close(client: Client) -> None:  # 7.1.1
    client.send(frame(TEXT, b"Hello World!") + close_frame(1000))
    assert client.frame() == (0x81, b"Hello World!")
    assert client.closed() == 1000


def test_nothing_is_answered_after_a_close(client: Client) -> None:  # 7.1.2 to 7.1.6
    client.send(close_frame(1000) + close_frame(1000) + frame(TEXT, b"x") + frame(PING))
    assert client.closed() == 1000


def test_a_close_inside_a_message(client: Client) -> None:
    client.send(frame(TEXT, b"fragment1", fin=False) + close_frame(1000) + frame(0, b"x"))
    assert client.closed() == 1000


def test_an_empty_close(client: Client) -> None:  # 7.3.1
    client.send(frame(CLOSE))
    assert client.closed() == 1005


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x03", 1002),  # 7.3.2
        (b"\x03\xe8", 1000),
        (b"\x03\xe8Hello", 1000),
        (b"\x03\xe8" + b"*" * 123, 1000),
        (b"\x03\xe8" + b"*" * 124, 1002),
        (b"\x03\xe8\xce\xba\xed\xa0\x80", 1007),  # 7.5.1
    ],
)
def test_the_payload_of_a_close(client: Client, payload: bytes, code: int) -> None:
    client.send(frame(CLOSE, payload))
    assert client.closed() == code


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1012), 3000, 3999, 4000, 4999])
def test_valid_close_codes_are_echoed(client: Client, code: int) -> None:  # 7.7
    client.send(close_frame(code, b"reason"))
    assert client.closed() == code


@pytest.mark.parametrize(
    "code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
)
def test_invalid_close_codes(client: Client, code: int) -> None:  # 7.9, 7.13
    client.send(close_frame(code))
    assert client.closed() == 1002


# 9: limits, 10: auto-fragmentation


def test_messages_up_to_the_limit_and_not_beyond(client: Client) -> None:
    limit = 1024 * 1024
    client.send(frame(BINARY, b"a" * limit, key=b"\0\0\0\0"))
    assert client.frame() == (0x82, b"a" * limit)
    client.send(frame(BINARY, b"a" * limit, fin=False, key=b"\0\0\0\0") + frame(0, b"a"))
    assert client.closed() == 1009


def test_a_large_message_in_fragments_of_1300_bytes(client: Client) -> None:  # 10.1.1
    payload = b"*" * 65_536
    client.send(split(payload, 1_300))
    assert client.frame() == (0x81, payload)


# The application


def test_a_close_reason_arrives_both_ways(worker: Worker) -> None:
    with worker.client() as client:
        client.upgrade("/close?code=4401&reason=%22not+signed+in%22")
        assert client.frame() == (0x88, (4401).to_bytes(2, "big") + b"not signed in")
        client.send(close_frame(4401))
        assert client.rest() == b""
    worker.wait_for("closed 4401")
    with worker.client() as client:
        client.upgrade()
        client.send(close_frame(3001, b"because"))
        assert client.closed() == 3001
    worker.wait_for("disconnect 3001 because")


@pytest.mark.parametrize(
    "query", ["code=1006", "code=5000", 'code="a"', "reason=%22%5Cud800%22", "reason=1"]
)
def test_a_close_that_can_not_be_sent_is_one_with_1011(worker: Worker, query: str) -> None:
    said = "The application can't close /close"
    worker.expected = [said]
    with worker.client() as client:
        client.upgrade(f"/close?{query}")
        first, payload = client.frame()
        assert (first, int.from_bytes(payload[:2], "big")) == (0x88, 1011)
        client.send(close_frame(1011))  # else the server waits for it
        assert client.rest() == b""
    worker.wait_for("closed 1011")
    assert worker.text.count(said) == 1


@pytest.mark.parametrize(
    ("path", "code"), [("/error?accept=1", 1011), ("/stray?accept=1", 1011), ("/return", 1000)]
)
def test_an_application_that_ends_closes(shared: Worker, path: str, code: int) -> None:
    shared.expected += ["application: ws boom", "application: stray"]
    with shared.client() as client:
        client.upgrade(path)
        first, payload = client.frame()
        assert (first, int.from_bytes(payload, "big")) == (0x88, code)


def test_a_peer_that_does_not_answer_a_close_is_cut_off(start: Callable[..., Worker]) -> None:
    worker = start("--close-timeout", "0.3")

    def leave_it_open() -> None:
        with worker.client() as client:
            began = time.monotonic()  # before the server has sent its close frame
            client.upgrade("/close")
            client.frame()
            assert client.rest() == b""
            assert 0.2 < time.monotonic() - began < 4

    three_tries(leave_it_open)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_peer_that_vanishes(worker: Worker, how: str) -> None:
    def vanish() -> None:
        assert worker.reset(15)
        client = worker.client()
        client.upgrade()
        getattr(client, how)()
        assert worker.wait_for("disconnect 1006") < 1.0

    three_tries(vanish)


# Backpressure


def test_a_peer_that_does_not_read_pauses_the_application(worker: Worker) -> None:
    before = worker.rss()

    def read_nothing() -> None:
        assert worker.reset(15)
        with worker.client(receive_buffer=65_536) as client:
            client.upgrade("/flood")
            time.sleep(1)
            assert worker.rss() - before < 8_000_000
            assert worker.get("/hello") == b"hello"
        assert worker.wait_for("flood finally") < 1.0

    three_tries(read_nothing)


def test_a_peer_that_reads_does_not_starve_the_others(worker: Worker) -> None:
    with worker.client() as client:
        client.upgrade("/flood?size=10")
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            client.sock.recv(1_000_000)
        assert worker.get("/hello") == b"hello"


@pytest.mark.parametrize("half_closes", [False, True])
def test_an_application_that_only_receives_holds_up_nobody(
    worker: Worker, half_closes: bool
) -> None:
    count = 100 * MESSAGES_IN_A_ROW
    with worker.client() as client:
        client.upgrade("/busy")
        client.send(frame(TEXT, b"m") * count + frame(TEXT, b"last"))  # in one packet
        if half_closes:
            client.sock.shutdown(socket.SHUT_WR)
        worker.wait_for("busy")
    turns, _ = worker.status()["events"][-2:]
    assert int(turns) >= 0.9 * count / MESSAGES_IN_A_ROW  # but for the first and the last


@pytest.mark.parametrize("size", [0, 10, 2_000])
def test_messages_wait_in_the_socket_while_the_application_is_busy(
    worker: Worker, size: int
) -> None:
    before = worker.rss()
    with worker.client() as client:
        client.upgrade("/slow?wait=1.0")
        payload = frame(TEXT, b"m" * size)
        sent = 0
        client.sock.setblocking(False)
        end = time.monotonic() + 0.6
        while time.monotonic() < end and sent < len(payload) * 50_000:
            try:
                sent += client.sock.send((payload * 200)[sent % len(payload) :])
            except BlockingIOError:
                time.sleep(0.01)
        assert worker.rss() - before < 8_000_000
        client.sock.settimeout(20)
        client.send(payload[sent % len(payload) :] if sent % len(payload) else b"")
        count = -(-sent // len(payload))
        client.send(close_frame(1000))
        assert client.closed() == 1000
    worker.wait_for(f"slow got {count} then 1000")


def test_a_disconnect_is_noticed_with_a_full_receive_queue(worker: Worker) -> None:
    def leave() -> None:
        assert worker.reset(15)
        with worker.client() as client:
            client.upgrade("/slow?gone=1")
            client.send(frame(TEXT, b"x" * 100) * 500)
            time.sleep(0.2)
        took = worker.wait_for("gone is set")
        worker.wait_for("slow got 500 then 1006")
        assert took < 1.0

    three_tries(leave)


def test_pings_do_not_pile_up(worker: Worker) -> None:
    before = worker.rss()
    with worker.client(receive_buffer=4_096) as client:
        client.upgrade()
        client.sock.settimeout(1.0)
        pings = frame(PING, b"p" * 125) * 8_000
        try:
            for _ in range(20):
                client.send(pings)
        except TimeoutError:
            pass
        assert worker.rss() - before < 8_000_000


# Time


def test_a_silent_peer_is_pinged_and_then_dropped(start: Callable[..., Worker]) -> None:
    worker = start("--ping-interval", "1", "--ping-timeout", "1")

    def fall_silent() -> None:
        with worker.client() as silent, worker.client() as lively:
            silent.upgrade()
            lively.upgrade()
            began = time.monotonic()
            for _ in range(3):
                assert lively.frame() == (0x89, b"")
                lively.send(frame(PONG))
            assert silent.rest() == b"\x89\x00"
            assert 1.5 < time.monotonic() - began < 10
            lively.send(frame(TEXT, b"still here"))
            eventually(lambda: lively.frame() == (0x81, b"still here"))

    three_tries(fall_silent)


def test_a_handshake_that_is_refused_for_what_follows_it_starts_no_application(
    worker: Worker,
) -> None:
    with worker.client() as client:
        client.request("/slow?wait=0.2")
        answers = client.upgrade(data=bytes(100_000)).body
    assert b"400 Bad Request" in answers
    time.sleep(0.1)
    assert worker.status()["events"] == ["slow started", "slow finally"]


def test_an_application_that_does_not_answer_a_handshake(start: Callable[..., Worker]) -> None:
    worker = start("--websocket_connect_timeout", "1", "--ping-interval", "1")
    with worker.client() as client:
        assert client.upgrade("/hang").status == 503
