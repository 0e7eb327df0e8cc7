"""What a response's bytes are."""

import re
from typing import Any

import pytest

from realtime.server.http_response import Response


def build(
    *bodies: bytes,
    method: bytes = b"GET",
    minor: int = 1,
    status: int = 200,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> tuple[Response, bytes]:
    response = Response(method, minor, bool(minor))
    response.start(status, headers or [])
    last = len(bodies) - 1
    data = b"".join(response.body(each, n < last) for n, each in enumerate(bodies))
    return response, re.sub(rb"date: [^\r]+ GMT\r\n", b"", data)


def test_one_body_gets_its_length() -> None:
    assert build(b"abc")[1] == b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"


def test_several_bodies_are_chunked() -> None:
    expected = (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"
    )
    assert build(b"a", b"", b"bc")[1] == expected
    assert build(b"a", b"bc", b"")[1] == expected


def test_http_1_0_is_ended_by_the_connection() -> None:
    response, data = build(b"a", b"b", minor=0)
    assert data == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nab"
    assert response.close


@pytest.mark.parametrize("status", [204, 304])
def test_without_a_body_there_is_no_framing(status: int) -> None:
    assert build(b"ignored", status=status)[1].endswith(b"\r\n\r\n")
    assert b"transfer-encoding" not in build(b"", status=status)[1]


def test_head_has_the_headers_of_get() -> None:
    assert build(b"abc", method=b"HEAD")[1] == b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"
    data = build(b"", method=b"HEAD", headers=[(b"Content-Length", b"9")])[1]
    assert data == b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"


def test_the_application_does_not_frame() -> None:
    data = build(b"a", headers=[(b"transfer-encoding", b"chunked"), (b"connection", b"x")])[1]
    assert data == b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na"


@pytest.mark.parametrize("bad", [b"a\r\nb: c", b"a\nb", b"a\rb", b"a\0b"])
def test_a_header_can_not_start_another(bad: bytes) -> None:
    for header, problem in (((b"x", bad), "CR, LF or NUL"), ((bad, b"x"), "no valid name")):
        with pytest.raises(ValueError, match=problem):
            Response(b"GET", 1, True).start(200, [header])


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"\xe9", b"(a)"])
def test_a_header_has_a_valid_name(name: bytes) -> None:
    with pytest.raises(ValueError, match="no valid name"):
        Response(b"GET", 1, True).start(200, [(name, b"x")])


@pytest.mark.parametrize("status", [0, 100, 101, 199, 1000, "200", None])
def test_a_status_is_that_of_a_final_response(status: Any) -> None:
    with pytest.raises(ValueError, match="final response"):
        Response(b"GET", 1, True).start(status, [])


@pytest.mark.parametrize("lengths", [[b"1", b"1"], [b"1", b"2"], [b"-1"], [b"1, 1"], [b""]])
def test_there_is_one_length_and_it_is_a_number(lengths: list[bytes]) -> None:
    with pytest.raises(ValueError, match="Content-Length"):
        build(b"a", headers=[(b"Content-Length", length) for length in lengths])


def test_204_has_no_length() -> None:
    # RFC 9110, section 8.6; Django's CommonMiddleware sets it.
    data = build(b"", status=204, headers=[(b"Content-Length", b"0"), (b"x", b"y")])[1]
    assert data == b"HTTP/1.1 204 No Content\r\nx: y\r\n\r\n"
    assert b"Content-Length: 5" in build(b"", status=304, headers=[(b"Content-Length", b"5")])[1]


def test_a_body_is_bytes() -> None:
    response = Response(b"GET", 1, True)
    response.start(200, [])
    with pytest.raises(TypeError, match="not str"):
        response.body("text", False)  # type: ignore[arg-type]
    assert not response.is_head_sent
    assert response.body(bytearray(b"a"), False).endswith(b"content-length: 1\r\n\r\na")


def test_after_a_refused_body_another_answer_is_possible() -> None:
    response = Response(b"GET", 1, True)
    response.start(200, [(b"content-length", b"2")])
    with pytest.raises(RuntimeError, match="longer"):
        response.body(b"abc", False)
    assert not response.is_head_sent


def test_where_an_event_stream_may_end() -> None:
    response = Response(b"GET", 1, True)
    response.start(200, [(b"content-type", b"text/event-stream; charset=utf-8")])
    for part, ends in (
        *((b"", True), (b"data: 1\n", False), (b"\n", True), (b"data: 2\r\n\r", False)),
        *((b"\n", True), (b"data: 3", False), (b"\r\r", True)),
        # A comment belongs to no event, and ends none.
        *((b": a\n", True), (b": a\r\n:b\n", True), (b"data: 4", False), (b": 5\n", False)),
        *((b": a\n", False), (b"\n", True), (b": a", False), (b"\n", False), (b"\n", True)),
        # Nor does an id that waits for the next one, or a delay.
        *((b"id: 1\nretry: 2\n", True), (b"event: a\n", False), (b"id: 2\n", False)),
    ):
        response.body(part, True)
        assert response.is_between_events is ends
    response = Response(b"GET", 1, True)
    response.start(200, [(b"content-type", b"text/event-stream"), (b"content-encoding", b"gzip")])
    assert not response.is_between_events


def test_headers_are_bytes() -> None:
    with pytest.raises(ValueError, match="pairs of bytes"):
        Response(b"GET", 1, True).start(200, [("x", b"y")])  # type: ignore[list-item]


def test_more_than_the_length_is_an_error_and_less_ends_the_connection() -> None:
    headers = [(b"content-length", b"2")]
    with pytest.raises(RuntimeError, match="longer"):
        build(b"abc", headers=headers)
    response, _ = build(b"a", headers=headers)
    assert response.is_short
    assert response.close


def test_a_response_starts_and_ends_once() -> None:
    response, _ = build(b"a")
    with pytest.raises(RuntimeError, match="already complete"):
        response.body(b"", False)
    with pytest.raises(RuntimeError, match="already been started"):
        response.start(200, [])
    with pytest.raises(RuntimeError, match="not been started"):
        Response(b"GET", 1, True).body(b"", False)
