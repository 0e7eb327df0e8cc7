"""WebSocket frames (RFC 6455, section 5): parsing and encoding. No I/O.

The parser is ours, and only its masking is websockets'. A connection keeps no parser while it is
idle, so one is made where a frame arrives in parts; in microseconds of one machine, as
`python -m benchmarks.parsers` prints them:

    what arrives                        ours    websockets' Protocol
    20 B in one read, without a parser   0.9
    20 B, with a parser made for it      4.7    17.4
    20 B, with a parser that is kept     4.1     7.8
    64 KiB in four reads, made for it   20.6     138

A Protocol that is kept takes 1.1 KiB of each connection. It also can't be paused between two
frames, and takes text that is not UTF-8. It is what the tests compare this parser with.
"""

import codecs
from typing import Any, Final, NamedTuple

try:
    from websockets.speedups import apply_mask
except ImportError:  # installed without its module in C
    from websockets.utils import apply_mask

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
_CONTINUATION: Final = 0
_OPCODES: Final = frozenset((_CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
NO_STATUS: Final = 1005
ABNORMAL: Final = 1006
INVALID_TEXT: Final = 1007
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
RESTARTING: Final = 1012

# The first byte of a frame: what is wrong with it.
_INVALID: Final = dict.fromkeys(range(CLOSE, 0x80), "A control frame can't be fragmented")
_INVALID.update((byte, "Reserved opcode") for byte in range(256) if byte & 0x0F not in _OPCODES)
_INVALID.update((byte, "Reserved bits are set") for byte in range(256) if byte & 0x70)
_UNMASKED: Final = "Frames from a client must be masked"
_UNBEGUN: Final = "There is no message to continue"
_UNFINISHED: Final = "The last message is not finished"

_UTF8Decoder: Final = codecs.getincrementaldecoder("utf-8")
_MAX_CHUNKS: Final = 1_024
MAX_CONTROL: Final = 125
MAX_REASON: Final = MAX_CONTROL - 2  # the code takes two bytes

MAX_WHOLE: Final = 65_535  # bytes of a message that `parse_whole` can take
NOT_UTF8: Final = "The text is not UTF-8"

_WHOLE_TEXT: Final = 0x80 | TEXT  # the first byte of a message in one frame
_WHOLE_BINARY: Final = 0x80 | BINARY
_WHOLE: Final = (_WHOLE_TEXT, _WHOLE_BINARY)
_SMALL_HEADS: Final = {
    opcode: [bytes((0x80 | opcode, size)) for size in range(126)] for opcode in (TEXT, BINARY)
}


class FrameError(Exception):
    """A breach of the protocol: the connection is to be closed with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Frame(NamedTuple):
    """A whole message or control frame. Text is str, everything else bytes."""

    opcode: int
    payload: str | bytes


def may_arrive(code: int) -> bool:
    """Return whether a close frame may carry the code (section 7.4; IANA for 1012-1014)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def encode(opcode: int, payload: bytes) -> bytes:
    """Return one unfragmented, unmasked frame, as a server sends it."""
    size = len(payload)
    if size < 126:
        heads = _SMALL_HEADS.get(opcode)
        head = heads[size] if heads else bytes((0x80 | opcode, size))
    elif size < 65_536:
        head = bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big")
    return head + payload


def frame_text(body: bytes) -> bytes:
    """Return one unfragmented, unmasked text frame around body, which is UTF-8."""
    return encode(TEXT, body)


def encode_close(code: int, reason: str = "") -> bytes:
    """Return a close frame. The reason is cut to what fits, between characters."""
    if code == NO_STATUS:
        return encode(CLOSE, b"")
    text = reason.encode()[:MAX_REASON].decode(errors="ignore").encode()
    return encode(CLOSE, code.to_bytes(2, "big") + text)


def decode_close(payload: bytes) -> tuple[int, str]:
    """Return the code and reason of a close frame's payload. Raises FrameError."""
    if not payload:
        return NO_STATUS, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not may_arrive(code):
        raise FrameError(PROTOCOL_ERROR, "Invalid close code")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise FrameError(INVALID_TEXT, "The close reason is not UTF-8") from None


def parse_whole(data: bytes, limit: int) -> str | bytes | None:
    """Return the message of which `data` is the one frame, a text as str, or None.

    None is for everything that needs a FrameParser: parts of frames, fragments, control frames,
    lengths of 64 bits, breaches of the protocol and more than `limit` bytes. Raises FrameError for
    a text that is not UTF-8.
    """
    size, start = len(data) - 6, 6
    if size < 0 or (first := data[0]) not in _WHOLE:
        return None
    if size > 125:
        size, start = size - 2, 8
        if size < 126 or data[1] != 0xFE or int.from_bytes(data[2:4], "big") != size:
            return None
    elif data[1] != 0x80 | size:
        return None
    if size > limit:
        return None
    payload = apply_mask(data[start:], data[start - 4 : start])
    if first == _WHOLE_BINARY:
        return payload
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise FrameError(INVALID_TEXT, NOT_UTF8) from None


class FrameParser:
    """Turn what arrives from a client into messages and control frames, in order.

    `feed()` it, then call `next()` until it returns None. Text is checked as it arrives, so
    invalid UTF-8 is found before its frame is complete. `max_frame` and `max_message` are bytes;
    0 is no limit.
    """

    __slots__ = (
        *("_chunks", "_data", "_decoder", "_fin", "_key", "_left", "_message", "_opcode"),
        *("_position", "_size", "max_frame", "max_message", "since"),
    )

    def __init__(self, max_frame: int, max_message: int) -> None:
        self.max_frame = max_frame
        self.max_message = max_message
        self.since = 0.0  # for its connection: when what it has would have begun at a minimum rate
        self._data = b""
        self._position = 0
        self._left = -1  # bytes missing from the frame being read; -1 between frames
        self._opcode = 0
        self._fin = False
        self._key = b""
        self._message = 0  # opcode of the message being put together; 0 between messages
        self._chunks: list[Any] = []  # str of a text, else bytes
        self._size = 0
        self._decoder: codecs.IncrementalDecoder | None = None

    @property
    def is_idle(self) -> bool:
        """Return whether nothing is left over: no frame or message has begun."""
        return self._left < 0 and not self._message and self._position == len(self._data)

    @property
    def waiting(self) -> int:
        """Return the number of bytes that were fed and not parsed yet."""
        return len(self._data) - self._position

    def feed(self, data: bytes) -> None:
        """Take what has arrived, to be parsed by `next`."""
        self._data = self._data[self._position :] + data
        self._position = 0

    def next(self) -> Frame | None:
        """Return the next whole message or control frame, or None until more arrives.

        Raises FrameError.
        """
        while self._left >= 0 or self._header():
            frame = self._payload()
            if frame is not None:
                return frame
            if self._left > 0:
                return None
        return None

    def _header(self) -> bool:
        """Take the next frame's header. Return whether all of it has come."""
        data, start = self._data, self._position
        have = len(data) - start
        if have < 2:
            return False
        first, second = data[start], data[start + 1]
        opcode, size, head = first & 0x0F, second & 0x7F, 6
        if first in _INVALID or second < 0x80:
            raise FrameError(PROTOCOL_ERROR, _INVALID.get(first, _UNMASKED))
        if opcode >= CLOSE:
            if size > MAX_CONTROL:
                raise FrameError(PROTOCOL_ERROR, "A control frame carries at most 125 bytes")
        elif (not opcode) is (not self._message):
            raise FrameError(PROTOCOL_ERROR, _UNFINISHED if opcode else _UNBEGUN)
        if size > 125:
            head = 8 if size == 126 else 14
            if have < head - 4:
                return False
            size = _long_size(data[start + 2 : start + head - 4])
        if opcode < CLOSE:
            self._check_size(size)
        if have < head:
            return False
        self._opcode = opcode
        self._fin = first >= 0x80
        self._key = data[start + head - 4 : start + head]
        self._left = size
        self._position = start + head
        self._message = opcode if opcode in (TEXT, BINARY) else self._message
        return True

    def _check_size(self, size: int) -> None:
        if 0 < self.max_frame < size:
            raise FrameError(TOO_BIG, f"A frame may have {self.max_frame} bytes")
        if 0 < self.max_message < self._size + size:
            raise FrameError(TOO_BIG, f"A message may have {self.max_message} bytes")

    def _payload(self) -> Frame | None:
        """Take what has come of a payload. Return the message or control frame that it ends."""
        start, left, opcode, key = self._position, self._left, self._opcode, self._key
        data = self._data[start : start + left]
        left -= len(data)
        if left and opcode >= CLOSE:
            return None  # at most 125 bytes: wait for all of them
        self._position = start + len(data)
        self._left = left or -1
        if left and (turn := len(data) % 4):
            self._key = key[turn:] + key[:turn]
        data = apply_mask(data, key)
        if opcode >= CLOSE:
            return Frame(opcode, data)
        is_last, opcode = self._fin and not left, self._message
        chunk: Any = self._decode(data, is_last) if opcode == TEXT else data
        if chunk:
            self._chunks.append(chunk)
        if is_last:
            message = chunk[:0].join(self._chunks)
            self._chunks, self._size, self._message, self._decoder = [], 0, 0, None
            return Frame(opcode, message)
        self._size += len(data)
        if len(self._chunks) > _MAX_CHUNKS:
            # A message that comes byte by byte must not cost a list entry for each of them.
            self._chunks = [chunk[:0].join(self._chunks)]
        return None

    def _decode(self, data: bytes, is_last: bool) -> str:
        try:
            if self._decoder is None:
                if is_last:
                    return data.decode()
                self._decoder = _UTF8Decoder()
            return self._decoder.decode(data, is_last)
        except UnicodeDecodeError:
            raise FrameError(INVALID_TEXT, NOT_UTF8) from None


def _long_size(field: bytes) -> int:
    size = int.from_bytes(field, "big")
    if size < (126 if len(field) == 2 else 65_536) or size >> 63:
        raise FrameError(PROTOCOL_ERROR, "The length is not encoded minimally")
    return size
