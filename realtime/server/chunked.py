"""The chunked coding of a request's body (RFC 9112, section 7.1), decoded strictly. No I/O."""

import re
from enum import Enum
from typing import Final

from realtime.server import header_names
from realtime.server.http_request import BadRequest

MAX_CHUNK_LINE: Final = 1_024
"""Bytes of a chunk's size line, extensions included."""

MAX_TRAILERS: Final = 8_192
"""Bytes of the trailer section, which is read, checked and dropped."""

# Strict in the extensions, which are ignored: a control ends the line for some parsers. White space
# around them, which RFC 9112 has recipients put up with, is refused by httptools and h11 too.
_TOKEN: Final = header_names.TOKEN.pattern
_SIZE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,15})(?:;%b(?:=(?:%b|\"(?:[\t \x21\x23-\x5b\x5d-\x7e]|\\[\t\x20-\x7e])*\"))?)*"
    % (_TOKEN, _TOKEN)
)
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
# RFC 9110, section 6.5.1: a trailer must not frame the message. Nothing stands for what is no name.
_NOT_TRAILERS: Final = frozenset({b"", b"content-length", b"transfer-encoding"})


class _Part(Enum):
    """What comes next in the chunked coding."""

    SIZE = "a chunk's size line"
    DATA = "a chunk's data"
    DATA_END = "the CRLF after it"
    TRAILER = "a trailer, or the empty line that ends the body"
    NOTHING = "the body is complete"


class ChunkedBody:
    """Decode a body in chunked coding (RFC 9112, section 7.1)."""

    __slots__ = ("_buffer", "_left", "_max_left", "_next", "_trailers")

    def __init__(self, max_size: int) -> None:
        self._buffer = b""  # what was not enough for a decision
        self._next = _Part.SIZE
        self._left = 0  # bytes of the current chunk
        self._max_left = max_size  # bytes that further chunks may have
        self._trailers = 0  # bytes of trailers read

    @property
    def is_complete(self) -> bool:
        """Return whether the end of the body has been seen."""
        return self._next is _Part.NOTHING

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the body's bytes in data, and what follows the body once it is complete.

        Raises BadRequest.
        """
        if self._buffer:
            data = self._buffer + data
        position, parts = 0, list[bytes]()
        while self._next is not _Part.NOTHING:
            if self._next is _Part.DATA:
                part = data[position : position + self._left]
                if not part:
                    break
                parts.append(part)
                position += len(part)
                self._left -= len(part)
                if not self._left:
                    self._next = _Part.DATA_END
                continue
            end = self._end_of_line(data, position)
            if end < 0:
                break
            self._line(data[position:end])
            position = end + 2
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if self.is_complete:
            return body, data[position:]
        self._buffer = data[position:]
        return body, b""

    def _end_of_line(self, data: bytes, position: int) -> int:
        """Return where the line from `position` on ends; -1 if that has not arrived."""
        end = data.find(b"\r\n", position)
        size = (end if end >= 0 else len(data)) - position
        if self._next is _Part.DATA_END:
            # One byte may be the CR.
            if size > 1 or (size == 1 and (end >= 0 or data[position] != 13)):
                raise BadRequest(400, "A chunk is longer than its size.")
        elif self._next is _Part.SIZE:
            if size > MAX_CHUNK_LINE:
                raise BadRequest(400, "A chunk's size line is too long.")
        elif self._trailers + size > MAX_TRAILERS:
            raise BadRequest(431, "The trailers are too long.")
        return end

    def _line(self, line: bytes) -> None:
        if self._next is _Part.DATA_END:
            self._next = _Part.SIZE
        elif self._next is _Part.SIZE:
            self._size(line)
        elif line:
            self._trailers += len(line) + 2
            _check_trailer(line)
        else:
            self._next = _Part.NOTHING

    def _size(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise BadRequest(400, "Invalid chunk size.")
        self._left = int(match[1], 16)
        if self._left > self._max_left:
            raise BadRequest(413, "The body is too long.")
        self._max_left -= self._left
        self._next = _Part.DATA if self._left else _Part.TRAILER


def _check_trailer(line: bytes) -> None:
    # As strict as a head. One that is framed otherwise than by others swallows the next request.
    raw, colon, value = line.partition(b":")
    if not colon or not _VALUE.fullmatch(value) or header_names.lower(raw) in _NOT_TRAILERS:
        raise BadRequest(400, "Invalid trailer.")
