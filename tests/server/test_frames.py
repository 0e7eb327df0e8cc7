"""The codec without a socket; the whole protocol is tried in test_websocket."""

import codecs
import logging
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol
from websockets.utils import apply_mask

from realtime.server import frames
from realtime.server.frames import Frame, FrameError, FrameParser, frame_text

from .oracles import pieces_of
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


# Beside websockets' parser


class Read(NamedTuple):
    """Messages and control frames; and the code of the close, a peer's or that of a refusal."""

    frames: list[tuple[int, str | bytes]]
    code: int | None = None


Limits = tuple[int, int]  # bytes of a frame and of a message; 0 is no limit
LIMITS: Final[list[Limits]] = [(0, 0), (100, 0), (0, 130), (200, 300)]


def by_us(pieces: Iterable[bytes], max_frame: int, max_message: int) -> Read:
    """As a connection does: whole messages need no parser."""
    read: list[tuple[int, str | bytes]] = []
    parser = FrameParser(max_frame, max_message)
    max_whole = min(max_frame or frames.MAX_WHOLE, max_message or frames.MAX_WHOLE)
    try:
        for piece in pieces:
            if parser.is_idle:
                message = frames.parse_whole(piece, max_whole)
                if message is not None:
                    read.append((1 if isinstance(message, str) else 2, message))
                    continue
            parser.feed(piece)
            while (one := parser.next()) is not None:
                if one.opcode == frames.CLOSE:
                    assert isinstance(one.payload, bytes)
                    return Read(read, frames.decode_close(one.payload)[0])
                read.append((one.opcode, one.payload))
    except FrameError as error:
        return Read(read, error.code)
    return Read(read)


def by_websockets(pieces: Iterable[bytes], max_frame: int, max_message: int) -> Read:
    """Two things are made even here: it leaves UTF-8 to others, and ours takes a close between the
    fragments of a message (section 5.4)."""
    sizes = (max_message or None, max_frame or None)
    protocol = Protocol(SERVER, state=OPEN, max_size=sizes, logger=logging.getLogger(__name__))
    read: list[tuple[int, str | bytes]] = []
    opcode, parts = 0, list[str | bytes]()
    decoder = codecs.getincrementaldecoder("utf-8")()
    for piece in pieces:
        protocol.receive_data(piece)
        for event in protocol.events_received():
            assert isinstance(event, WireFrame)
            data = bytes(event.data)
            if event.opcode is Opcode.CLOSE:
                continue
            if event.opcode >= Opcode.CLOSE:
                read.append((event.opcode, data))
                continue
            opcode = event.opcode or opcode
            try:
                parts.append(decoder.decode(data, event.fin) if opcode == frames.TEXT else data)
            except UnicodeDecodeError:
                return Read(read, 1007)
            if event.fin:
                empty: Any = "" if opcode == frames.TEXT else b""
                read.append((opcode, empty.join(parts)))
                parts.clear()
    close = protocol.close_rcvd or protocol.close_sent
    return Read(read, close.code if close else None)


def comparable(data: bytes, max_frame: int, max_message: int) -> bytes:
    """The whole frames before the first of which it is known that the two do not agree on it.

    websockets takes lengths that are not encoded minimally, and counts control frames among the
    message's bytes. What is wrong in two ways has another code: it compares sizes first, and reads
    a close's reason before its code.
    """
    at, opened, size_of_message = 0, False, 0
    while at + 2 <= len(data):
        first, second = data[at], data[at + 1]
        opcode, fin, size = first & 15, first >> 7, second & 127
        more = {126: 2, 127: 8}.get(size, 0)
        if more:
            size = int.from_bytes(data[at + 2 : at + 2 + more], "big")
            if size < (126 if more == 2 else 65_536) or size >> 63:
                break
        end = at + 6 + more + size
        is_large = size > (max_frame or size) or size_of_message + size > (max_message or 2**64)
        is_wrong = opcode >= 8 or first & 0x70 or opened != (opcode == 0)
        if end > len(data) or (is_large and is_wrong):
            break
        payload = apply_mask(data[end - size : end], data[end - size - 4 : end - size])
        code = int.from_bytes(payload[:2], "big")
        if opcode == frames.CLOSE and not (frames.may_arrive(code) or payload[2:].isascii()):
            break
        if opcode < 8:
            opened, size_of_message = not fin, 0 if fin else size_of_message + size
        at = end
    return data[:at]


def check(stream: bytes, cuts: Iterable[int] = (), limits: Limits = (0, 0)) -> None:
    pieces = pieces_of(comparable(stream, *limits), cuts)
    assert by_us(pieces, *limits) == by_websockets(pieces, *limits), stream


@pytest.mark.parametrize("before", [b"", frame(1, b"a", fin=False)], ids=["first", "within"])
def test_websockets_reads_the_same_of_every_header(before: bytes) -> None:
    for first in range(256):
        for second in (0, 1, 0x80, 0x81, 0xFD, 0xFE, 0xFF):
            size = {0xFE: (126).to_bytes(2, "big"), 0xFF: (65_536).to_bytes(8, "big")}
            check(before + bytes((first, second)) + size.get(second, b"") + bytes(131))


def test_websockets_takes_the_same_close_codes() -> None:
    for code in range(5_100):
        check(frame(8, code.to_bytes(2, "big")))


@pytest.mark.parametrize("limits", LIMITS)
def test_websockets_has_the_same_limits(limits: Limits) -> None:
    for size in range(90, 310):
        half = size // 2
        check(frame(2, bytes(size)), (), limits)
        check(frame(2, bytes(half), fin=False) + frame(0, bytes(size - half)), (), limits)


SOME = [b"a", "ü".encode(), "😀".encode(), b"\xf0\x9f", b"\x98\x80", b"\xff", b"\xed\xa0\x80"]
PAYLOADS = st.builds(
    lambda parts, times: b"".join(parts) * times,
    st.lists(st.sampled_from(SOME), max_size=3),
    st.sampled_from([1, 1, 40, 130]),
)
CONTROL = st.one_of(
    st.builds(frame, st.sampled_from([9, 10]), st.binary(max_size=125)),
    st.builds(lambda text: frame(8, b"\x03\xe8" + text), PAYLOADS),
    st.sampled_from([frame(8), frame(8, b"x"), frame(9, b"z" * 126), frame(1, b"a"), frame(0)]),
)
FRAGMENTS = st.lists(st.tuples(PAYLOADS, st.lists(CONTROL, max_size=1)), min_size=1, max_size=3)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Messages in fragments with control frames between them, and perhaps a byte that is wrong."""
    stream = b""
    for _ in range(draw(st.integers(1, 4))):
        opcode = draw(st.sampled_from([1, 2]))
        fragments = draw(FRAGMENTS)
        for number, (payload, controls) in enumerate(fragments, 1):
            stream += frame(opcode, payload, fin=number == len(fragments)) + b"".join(controls)
            opcode = 0
    if draw(st.booleans()):
        at = draw(st.integers(0, len(stream) - 1))
        stream = stream[:at] + draw(st.binary(max_size=2)) + stream[at + 1 :]
    return stream


@given(streams(), st.lists(st.integers(0, 10_000), max_size=8), st.sampled_from(LIMITS))
def test_websockets_reads_the_same(stream: bytes, cuts: list[int], limits: Limits) -> None:
    check(stream, cuts, limits)
