"""What a response's bytes are."""

import re

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
    for header in ((b"x", bad), (bad, b"x")):
        with pytest.raises(ValueError, match="CR, LF or NUL"):
            Response(b"GET", 1, True).start(200, [header])


def test_headers_are_bytes() -> None:
    with pytest.raises(ValueError, match="pairs of bytes"):
        Response(b"GET", 1, True).start(200, [("x", b"y")])  # type: ignore[list-item]


def test_more_than_the_length_is_an_error_and_less_ends_the_connection() -> None:
    headers = [(b"content-length", b"2")]
    with pytest.raises(RuntimeError, match="longer"):
        build(b"abc", headers=headers)
    response, _ = build(b"a", headers=headers)
    assert response.short
    assert response.close


def test_a_response_starts_and_ends_once() -> None:
    response, _ = build(b"a")
    with pytest.raises(RuntimeError, match="already complete"):
        response.body(b"", False)
    with pytest.raises(RuntimeError, match="already been started"):
        response.start(200, [])
    with pytest.raises(RuntimeError, match="not been started"):
        Response(b"GET", 1, True).body(b"", False)
