"""Request heads: what is read, and what is refused."""

import contextlib
import gc
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.server.http_request import BadRequest, RequestHead, parse_head
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


def test_the_absolute_form_counts_as_host() -> None:
    head = parse("GET http://real/ HTTP/1.0")
    assert head.headers == [(b"host", b"real")]


def test_upgrades_are_a_list() -> None:
    lines = ["GET / HTTP/1.1", "Host: h", "Connection: upgrade"]
    assert parse(*lines, "Upgrade: h2c, WebSocket").upgrade == [b"h2c", b"websocket"]
    assert parse(*lines, "Upgrade: h2c", "Upgrade: websocket").upgrade == [b"h2c", b"websocket"]


@pytest.mark.parametrize(
    "host", ["", "h", "h:", "h:80", "a-b_c.example", "127.0.0.1:1", "[::1]", "[::1]:80", "%c3%bc"]
)
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    assert parse("GET / HTTP/1.1", f"Host: {host}").get(b"host") == [host.encode()]


def test_an_upgrade_needs_its_connection_option() -> None:
    assert parse("GET / HTTP/1.1", "Host: h", "Upgrade: websocket").upgrade == []
    head = parse("GET / HTTP/1.1", "Host: h", "Upgrade: WebSocket", "Connection: x, Upgrade")
    assert head.upgrade == [b"websocket"]


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
        (["head / HTTP/1.1", "Host: h"], 400),
        (["HeaD / HTTP/1.1", "Host: h"], 400),
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
        (["GET / HTTP/1.1", "Host: h", "Content-Type: a/b", "content-type: a/b"], 400),
        (["GET / HTTP/1.1", "Host: h", "Transfer-Encoding: gzip, chunked"], 501),
        (["GET / HTTP/1.1", "Host: h"] + ["Transfer-Encoding: chunked"] * 2, 501),
        (["GET / HTTP/1.0", "Host: h", "Transfer-Encoding: chunked"], 400),
        *(
            ([f"GET {target} HTTP/1.1", "Host: h"], 400)
            for target in (
                *("http://u@h/", "http://u:p@h/", "http://h\\@x/", "http://h/a\\b", "http://:80/"),
                *("http:///a", "http://h/a#b", "http://h#b", "/a#b", "ftp://h/", "*", "http:a"),
            )
        ),
        *(
            (["GET / HTTP/1.1", f"Host: {host}"], 400)
            for host in (
                "u@h",
                "h/a",
                "a b",
                "h:1:2",
                "h:a",
                "[::1",
                "::1",
                "\xe9",
                "a\tb",
                "h?",
                "h#",
            )
        ),
        (["GET /" + "a" * LIMITS.max_target_bytes + " HTTP/1.1", "Host: h"], 414),
        (["a" * LIMITS.max_target_bytes + " / HTTP/1.1", "Host: h"], 414),
        (["GET / HTTP/1.1", "Host: h", "X: " + "y" * (LIMITS.max_line_bytes - 2)], 431),
        (["GET / HTTP/1.1", "Host: h", "y" * (LIMITS.max_line_bytes + 1)], 431),
        (["POST / HTTP/1.1", "Host: h", f"Content-Length: {LIMITS.max_body_size + 1}"], 413),
        (["GET / HTTP/1.1", "Host: h"] + ["X: y"] * LIMITS.max_headers, 431),
    ],
)
def test_what_two_parsers_could_understand_differently_is_refused(
    lines: list[str], status: int
) -> None:
    with pytest.raises(BadRequest) as error:
        parse(*lines)
    assert error.value.status == status


def test_what_just_fits_is_read() -> None:
    target, value = "/" + "a" * (LIMITS.max_target_bytes - 14), "y" * (LIMITS.max_line_bytes - 3)
    length = f"Content-Length: {LIMITS.max_body_size}"
    head = parse(f"GET {target} HTTP/1.1", "Host: h", f"X: {value}", length)
    assert (head.path, head.get(b"x")) == (target.encode(), [value.encode()])


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    for head in (data, b"GET / HTTP/1.1\r\nHost: h\r\n" + data):
        with contextlib.suppress(BadRequest):
            parse_head(head, LIMITS)


SHAPES = {
    "short headers": lambda size: [b"Name-%d: y" % n for n in range(size // 12)],
    "long headers": lambda size: [b"X: " + b"y" * 8_000] * (size // 8_000),
    "one long header": lambda size: [b"X: " + b" y" * (size // 2)],
    "one long name": lambda size: [b"X" * size + b":y"],
    "many options": lambda size: [b"Connection: " + b"a," * (size // 2)],
    "many protocols": lambda size: [b"Upgrade: " + b" ," * (size // 2)],
    "a long host": lambda size: [b"Host: " + b"a." * (size // 2) + b":"],
    "a long invalid host": lambda size: [b"Host: " + b"a." * (size // 2) + b"@"],
    "a number": lambda size: [b"Content-Length: " + b"1" * size],
}
WIDE = Limits(max_line_bytes=10**6, max_headers=10**6, max_target_bytes=10**6)


def seconds(data: bytes) -> float:
    """Processor time of parsing it, without collections of what other tests have left."""

    def once() -> float:
        began = time.thread_time()
        for _ in range(10):
            with contextlib.suppress(BadRequest):
                parse_head(data, WIDE)
        return time.thread_time() - began

    gc.disable()
    try:
        return min(once() for _ in range(7))
    finally:
        gc.enable()


def assert_linear(build: Callable[[int], bytes]) -> None:
    """Four times the size takes about 4 times as long; 16 times would be quadratic.

    What else runs on the machine empties the processor's caches: what is linear is so in one of
    three measurements, what is quadratic in none.
    """
    ratios = []
    while len(ratios) < 3:
        quarter, whole = seconds(build(16_384)), seconds(build(65_536))
        if whole < 8 * quarter + 0.001:
            return
        ratios.append(whole / quarter)
    pytest.fail(f"{ratios} times")


def head_of(lines: list[bytes], target: bytes = b"/") -> bytes:
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", *lines])


@pytest.mark.parametrize("shape", SHAPES)
def test_parsing_time_grows_linearly_with_the_head(shape: str) -> None:
    assert_linear(lambda size: head_of(SHAPES[shape](size)))


@pytest.mark.parametrize("part", [b"a", b"/", b"?", b"%", b"@", b"\\"])
@pytest.mark.parametrize("start", [b"/", b"http://"])
def test_parsing_time_grows_linearly_with_the_target(start: bytes, part: bytes) -> None:
    assert_linear(lambda size: head_of([b"Host: h"], start + part * size))
