"""The codec without a socket; the whole protocol is tried in test_websocket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

from realtime.server import frames
from realtime.server.frames import Frame, FrameError, FrameParser, frame_text

from .support import frame

LIMIT = 1_000_000


def parse(data: bytes, pieces: int = 0, limit: int = LIMIT) -> list[Frame]:
    parser = FrameParser(limit, limit)
    found = []
    for start in range(0, len(data), pieces or len(data)):
        parser.feed(data[start : start + (pieces or len(data))])
        while (one := parser.next()) is not None:
            found.append(one)
    assert parser.is_idle
    return found


@pytest.mark.parametrize("opcode", [1, 2])
@pytest.mark.parametrize("size", [0, 1, 5, 125, 126, 65_535])
def test_a_whole_frame_needs_no_parser(opcode: int, size: int) -> None:
    data = frame(opcode, b"z" * size)
    assert frames.parse_whole(data, size) == ("z" * size if opcode == 1 else b"z" * size)
    assert size == 0 or frames.parse_whole(data, size - 1) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        frame(2, b"Hello")[:-1],
        frame(2, b"Hello") + b"\x82",
        frame(2, b"z" * 126)[:-1],
        frame(2, b"z" * 126) + b"\x82",
        frame(2, b"z" * 65_536),
        frame(2, b"Hello", fin=False),
        frame(0, b"Hello"),
        frame(9, b"Hello"),
        frame(2, b"Hello", rsv=1),
        frame(2, b"Hello", masked=False),
        frame(2, b"z" * 126, masked=False),
        frame(2, b"z" * 125, head=b"\xfe" + (125).to_bytes(2, "big")),
        frame(2, b"z" * 300, head=b"\xff" + (300).to_bytes(8, "big")),
    ],
)
def test_everything_else_needs_a_parser(data: bytes) -> None:
    assert frames.parse_whole(data, LIMIT) is None


def test_a_whole_frame_of_text_is_checked() -> None:
    with pytest.raises(FrameError) as error:
        frames.parse_whole(frame(1, b"\xff"), LIMIT)
    assert error.value.code == 1007


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4), st.integers(1, 30))
def test_any_fragmentation_and_any_reads_give_the_same_message(
    texts: list[str], pieces: int
) -> None:
    whole = "".join(texts).encode()
    third = len(whole) // 3
    parts = [whole[:third], whole[third : 2 * third], whole[2 * third :]]
    data = frame(1, parts[0], fin=False) + frame(9, b"p") + frame(0, parts[1], fin=False)
    data += frame(0, parts[2])
    assert parse(data, pieces) == [Frame(9, b"p"), Frame(1, "".join(texts))]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_every_length_encoding(size: int) -> None:
    payload = b"z" * size
    assert parse(frame(2, payload)) == [Frame(2, payload)]
    encoded = frames.encode(frames.BINARY, payload)
    assert encoded == frame(2, payload, masked=False)


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_a_large_text_in_small_reads(pieces: int) -> None:
    text = "κόσμε" * 1_000
    assert parse(frame(1, text.encode()), pieces) == [Frame(1, text)]


def test_a_message_read_byte_by_byte_is_compacted() -> None:
    parser = FrameParser(0, 0)
    data = frame(2, b"q" * 5_000)
    for byte in data[:-1]:
        parser.feed(bytes((byte,)))
        assert parser.next() is None
    assert len(parser._chunks) <= frames._MAX_CHUNKS + 1
    parser.feed(data[-1:])
    assert parser.next() == Frame(2, b"q" * 5_000)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(1, b"x" * 11), 1009),
        (frame(1, b"x" * 6, fin=False) + frame(0, b"x" * 5), 1009),
        (frame(2, b"", length=2**62), 1009),
        (frame(2, b"", head=b"\xff" + b"\x80" + bytes(7)), 1002),
        (frame(2, b"x" * 5, head=b"\xfe\x00\x05"), 1002),
        (frame(2, b"x" * 5, head=b"\xff" + (5).to_bytes(8, "big")), 1002),
        (frame(1, b"x", masked=False), 1002),
    ],
)
def test_what_is_too_big_or_wrong_is_known_from_the_header(data: bytes, code: int) -> None:
    with pytest.raises(FrameError) as error:
        parse(data, limit=10)
    assert error.value.code == code


def test_invalid_utf8_is_found_before_the_frame_is_complete() -> None:
    parser = FrameParser(0, 0)
    data = frame(1, "κόσμε".encode() + b"\xf4\x90\x80\x80" + b"edited")
    parser.feed(data[: 6 + 11])
    assert parser.next() is None
    parser.feed(data[6 + 11 : 6 + 13])
    with pytest.raises(FrameError) as error:
        parser.next()
    assert error.value.code == 1007


def test_a_close_reason_is_cut_between_characters() -> None:
    encoded = frames.encode_close(1000, "ü" * 100)
    assert len(encoded) <= 2 + frames.MAX_CONTROL
    assert frames.decode_close(encoded[2:]) == (1000, "ü" * 61)
    assert frames.encode_close(frames.NO_STATUS) == b"\x88\x00"


def read_frames(stream: bytes) -> list[bytes | memoryview | bytearray]:
    """The payloads of the text frames that `websockets`, as a client, reads from `stream`."""
    protocol = Protocol(CLIENT, state=OPEN, max_size=None)
    protocol.receive_data(stream)
    assert protocol.parser_exc is None, protocol.parser_exc
    frames = protocol.events_received()
    assert all(frame.opcode is Opcode.TEXT and frame.fin for frame in frames)
    return [frame.data for frame in frames]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_text_frame_is_read_by_another_implementation(length: int) -> None:
    body = b"x" * length
    # Two, so that a wrong length shifts what follows.
    assert read_frames(frame_text(body) + frame_text(b"end")) == [body, b"end"]


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (125, "817d"),
        (126, "817e007e"),
        (65_535, "817effff"),
        (65_536, "817f0000000000010000"),
    ],
)
def test_the_length_is_written_in_its_shortest_form(length: int, header: str) -> None:
    assert frame_text(b"x" * length).hex().startswith(header + "78")
