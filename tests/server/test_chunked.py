"""Chunked bodies: what is read, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.server.chunked import ChunkedBody
from realtime.server.http_request import BadRequest

MB = 1_000_000


def decode(data: bytes, pieces: int) -> tuple[bytes, bytes, bool]:
    """The body, what follows it, and whether it is complete."""
    decoder, body, rest = ChunkedBody(MB), b"", b""
    for start in range(0, len(data), pieces):
        piece = data[start : start + pieces]
        if decoder.is_complete:
            rest += piece
        else:
            part, after = decoder.feed(piece)
            body, rest = body + part, rest + after
    return body, rest, decoder.is_complete


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.integers(1, 20))
def test_a_chunked_body_in_any_pieces(chunks: list[bytes], pieces: int) -> None:
    data = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(each), each) for each in chunks)
    data += b"0\r\nTrailer: x\r\n\r\nNEXT"
    assert decode(data, pieces) == (b"".join(chunks), b"NEXT", True)


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
        b"1 \r\na\r\n",
        b"1 ;a\r\na\r\n",
        b"1;a\x01\r\na\r\n",
        b"1;a\rb\r\na\r\n",
        b"1;\xe9\r\na\r\n",
        b'1;a="b\r\na\r\n',
        b"1\r\nab",
        b"1\r\na\n",
        b"1\r\na\rb",
        b"0\r\n\n",
        b"0\r\n" + b"a: b\r\n" * 2_000,
        b"0\r\n" + b"a" * 9_000,
        b"0\r\na\r\n",
        b"0\r\na: b\n\r\n",
        b"0\r\na: b\rc\r\n",
        b"0\r\na: \0\r\n",
        b"0\r\na : b\r\n",
        b"0\r\n: b\r\n",
        b"0\r\n b\r\n",
        b"0\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"0\r\nContent-Length: 1\r\n",
        b"0\r\ntransfer-encoding: chunked\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_chunked_body_that_is_wrong_is_refused(data: bytes, size: int) -> None:
    with pytest.raises(BadRequest) as error:
        decode(data + b"\r\n", size)
    assert error.value.status in (400, 431)


def test_a_body_that_becomes_too_long_is_refused_at_the_size_of_its_chunk() -> None:
    decoder = ChunkedBody(10)
    assert decoder.feed(b"6\r\n123456\r\n4\r\n1234\r\n") == (b"1234561234", b"")
    with pytest.raises(BadRequest) as error:
        decoder.feed(b"1\r\n")
    assert error.value.status == 413
    with pytest.raises(BadRequest):
        ChunkedBody(10).feed(b"fffffffffffffff\r\n")


def test_extensions_are_read_over() -> None:
    data = b'1;a=b;c;d="e f;\\"g"\r\nx\r\n0;last\r\nT: 1\r\nU:\r\n\r\n'
    assert ChunkedBody(MB).feed(data) == (b"x", b"")
