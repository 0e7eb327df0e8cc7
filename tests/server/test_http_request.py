"""Request heads and chunked bodies: what is read, and what is refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.server.http_request import BadRequest, ChunkedBody, RequestHead, parse_head
from realtime.server.limits import Limits

LIMITS = Limits()


def parse(*lines: str) -> RequestHead:
    return parse_head("\r\n".join(lines).encode("latin1"), LIMITS)


def test_an_ordinary_request() -> None:
    head = parse("POST /a/b%20c?x=1?2 HTTP/1.1", "Host: h", "X-One:  a b ", "Content-Length: 5")
    assert (head.method, head.path, head.query) == (b"POST", b"/a/b%20c", b"x=1?2")
    assert head.headers[1] == (b"x-one", b"a b")
    assert head.content_length == 5
    assert head.keep_alive


def test_header_values_may_hold_any_text() -> None:
    assert parse("GET / HTTP/1.1", "Host: h", "X: \xc3\x85").get(b"x") == [b"\xc3\x85"]


@pytest.mark.parametrize(
    ("connection", "version", "kept"),
    [
        ("close", 1, False),
        ("keep-alive", 1, True),
        ("keep-alive, Close", 1, False),
        ("keep-alive", 0, True),
        ("te", 0, False),
    ],
)
def test_keep_alive(connection: str, version: int, kept: bool) -> None:
    head = parse(f"GET / HTTP/1.{version}", "Host: h", f"Connection: {connection}")
    assert head.keep_alive is kept


def test_the_absolute_form_wins_over_the_host_header() -> None:
    head = parse("GET http://real:80?q=1 HTTP/1.1", "Host: other")
    assert (head.path, head.query, head.get(b"host")) == (b"/", b"q=1", [b"real:80"])


def test_an_upgrade_needs_its_connection_option() -> None:
    assert parse("GET / HTTP/1.1", "Host: h", "Upgrade: websocket").upgrade == b""
    head = parse("GET / HTTP/1.1", "Host: h", "Upgrade: WebSocket", "Connection: x, Upgrade")
    assert head.upgrade == b"websocket"


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["GET / HTTP/1.1"], 400),  # no Host
        (["GET / HTTP/1.1", "Host: a", "Host: b"], 400),
        (["GET / HTTP/2.0", "Host: h"], 505),
        (["GET /", "Host: h"], 400),
        (["GET  / HTTP/1.1", "Host: h"], 400),
        (["GET /\x7f HTTP/1.1", "Host: h"], 400),
        (["GET /\xe9 HTTP/1.1", "Host: h"], 400),
        (["GET a HTTP/1.1", "Host: h"], 400),
        (["CONNECT a:1 HTTP/1.1", "Host: h"], 400),
        (["G(T / HTTP/1.1", "Host: h"], 400),
        (["GET / HTTP/1.1", "Host: h", "X : y"], 400),
        (["GET / HTTP/1.1", "Host: h", " folded: y"], 400),
        (["GET / HTTP/1.1", "Host: h", "X: a", "\tb"], 400),
        (["GET / HTTP/1.1", "Host: h", "no colon"], 400),
        (["GET / HTTP/1.1", "Host: h", "host"], 400),
        (["GET / HTTP/1.1", "Host: h", ": empty"], 400),
        (["GET / HTTP/1.1", "Host: h", "X: a\nY: b"], 400),
        (["GET / HTTP/1.1", "Host: h", "X: a\rY: b"], 400),
        (["GET / HTTP/1.1", "Host: h", "X: a\0b"], 400),
        (["GET / HTTP/1.1", "Host: h", "X: a\x0bb"], 400),
        (["GET / HTTP/1.1", "Host: h", "Content-Length: -1"], 400),
        (["GET / HTTP/1.1", "Host: h", "Content-Length: +1"], 400),
        (["GET / HTTP/1.1", "Host: h", "Content-Length: 1_0"], 400),
        (["GET / HTTP/1.1", "Host: h", "Content-Length: 1, 1"], 400),
        (["GET / HTTP/1.1", "Host: h", "Content-Length: 1", "Content-Length: 1"], 400),
        (["GET / HTTP/1.1", "Host: h", "Content-Length: 1", "Transfer-Encoding: chunked"], 400),
        (["GET / HTTP/1.1", "Host: h", "Transfer-Encoding: gzip, chunked"], 501),
        (["GET / HTTP/1.1", "Host: h"] + ["Transfer-Encoding: chunked"] * 2, 501),
        (["GET / HTTP/1.0", "Host: h", "Transfer-Encoding: chunked"], 400),
        (["GET /" + "a" * LIMITS.max_target_bytes + " HTTP/1.1", "Host: h"], 414),
        (["GET / HTTP/1.1", "Host: h"] + ["X: y"] * LIMITS.max_headers, 431),
    ],
)
def test_what_two_parsers_could_understand_differently_is_refused(
    lines: list[str], status: int
) -> None:
    with pytest.raises(BadRequest) as error:
        parse(*lines)
    assert error.value.status == status


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    for head in (data, b"GET / HTTP/1.1\r\nHost: h\r\n" + data):
        with contextlib.suppress(BadRequest):
            parse_head(head, LIMITS)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.integers(1, 20))
def test_a_chunked_body_in_any_pieces(chunks: list[bytes], pieces: int) -> None:
    data = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(each), each) for each in chunks)
    data += b"0\r\nTrailer: x\r\n\r\nNEXT"
    decoder, body, rest = ChunkedBody(), b"", b""
    for start in range(0, len(data), pieces):
        if decoder.complete:
            rest += data[start : start + pieces]
            continue
        parts, after = decoder.feed(data[start : start + pieces])
        body += b"".join(parts)
        rest += after
    assert (body, rest, decoder.complete) == (b"".join(chunks), b"NEXT", True)


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"-1\r\n",
        b"0x5\r\n",
        b"\r\n",
        b"5\nhello\r\n",
        b"5;a\nb\r\n",
        b"2\r\nabcd",
        b"f" * 16 + b"\r\n",
        b"1;" + b"e" * 2_000,
        b"0\r\n" + b"a: b\r\n" * 2_000,
    ],
)
def test_a_chunked_body_that_is_wrong_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        ChunkedBody().feed(data)
