"""The head of an HTTP/1 request (RFC 9112), parsed strictly. No I/O.

Twisted's request machinery takes several hundred microseconds for what is done here in ten. What
two parsers could understand differently is refused: that is how requests are smuggled.
"""

import re
from typing import Final

from realtime.server.limits import Limits

_REQUEST_LINE: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/1\.([01])", re.ASCII
)
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_AUTHORITY: Final = re.compile(rb"https?://([^/?#@]+)", re.IGNORECASE)
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_HEX: Final = re.compile(rb"[0-9A-Fa-f]{1,15}")

MAX_CHUNK_LINE: Final = 1_024
"""Bytes of a chunk's size line, extensions included."""

MAX_TRAILERS: Final = 8_192
"""Bytes of the trailer section, which is read and dropped."""

_names: dict[bytes, bytes] = {}  # header names as sent -> in lower case; only valid ones
_MAX_NAMES: Final = 1_024


class BadRequest(Exception):
    """The request can't be served: `status` and `detail` are the answer."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class RequestHead:
    """A parsed request line and its headers. Names are in lower case."""

    __slots__ = (
        "chunked",
        "content_length",
        "expects_continue",
        "headers",
        "keep_alive",
        "method",
        "minor",
        "path",
        "query",
        "target",
        "upgrade",
    )

    def __init__(self, method: bytes, target: bytes, minor: int) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        path, _, self.query = target.partition(b"?")
        self.path = path
        self.headers: list[tuple[bytes, bytes]] = []
        self.keep_alive = minor == 1
        self.content_length: int | None = None
        self.chunked = False
        self.expects_continue = False
        self.upgrade = b""

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)

    def get(self, name: bytes) -> list[bytes]:
        """All values of a header."""
        return [value for key, value in self.headers if key == name]


def parse_head(data: bytes, limits: Limits) -> RequestHead:
    """The head in data, which ends before its empty line. Raises BadRequest."""
    line, *lines = data.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise _bad_request_line(line)
    method, target, minor = match[1], match[2], match[3] == b"1"
    if len(target) > limits.max_target_bytes:
        raise BadRequest(414, "The request target is too long.")
    if len(lines) > limits.max_headers:
        raise BadRequest(431, "Too many headers.")
    # Any CR or LF that is not a line's end would let another parser see other lines.
    if _CONTROL.search(data) or data.count(b"\n") != len(lines) or data.count(b"\r") != len(lines):
        raise BadRequest(400, "Invalid character in the headers.")
    authority = None
    if target[0] != 47:  # "/"
        authority, target = _other_form(method, target)
    head = RequestHead(method, target, int(minor))
    hosts = 0
    connection = b""
    add = head.headers.append
    for line in lines:
        raw, colon, value = line.partition(b":")
        name = _names.get(raw) or _header_name(raw)
        if not colon:
            raise BadRequest(400, "A header without a colon.")
        value = value.strip(b" \t")
        if name == b"host":
            hosts += 1
            if authority is not None:
                value = authority  # RFC 9112, section 3.2.2: the target wins
        elif name == b"connection":
            connection += b"," + value.lower()
        elif name == b"content-length":
            if not _DIGITS.fullmatch(value) or head.content_length is not None:
                raise BadRequest(400, "Invalid Content-Length.")
            head.content_length = int(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked" or head.chunked:
                raise BadRequest(501, "The only transfer coding understood is chunked.")
            head.chunked = True
        elif name == b"expect":
            head.expects_continue = head.minor == 1 and value.lower() == b"100-continue"
        elif name == b"upgrade":
            head.upgrade = value.lower()
        add((name, value))
    if hosts > 1 or (head.minor and not hosts):
        raise BadRequest(400, "Exactly one Host header is needed.")
    if head.chunked and (head.content_length is not None or not head.minor):
        raise BadRequest(400, "Transfer-Encoding is not possible here.")
    if connection:
        options = [option.strip() for option in connection.split(b",")]
        if b"close" in options:
            head.keep_alive = False
        elif b"keep-alive" in options:
            head.keep_alive = True
        if b"upgrade" not in options:
            head.upgrade = b""
    else:
        head.upgrade = b""
    return head


def _header_name(raw: bytes) -> bytes:
    if not _TOKEN.fullmatch(raw):
        # Also a space before the colon and a folded line, which RFC 9112 wants refused.
        raise BadRequest(400, "Invalid header name.")
    name = raw.lower()
    if len(_names) < _MAX_NAMES:
        _names[raw] = name
    return name


def _bad_request_line(line: bytes) -> BadRequest:
    words = line.split(b" ")
    if len(words) == 3 and words[2].startswith(b"HTTP/") and not words[2].startswith(b"HTTP/1."):
        return BadRequest(505, "HTTP/1.1 is spoken here.")
    return BadRequest(400, "Invalid request line.")


def _other_form(method: bytes, target: bytes) -> tuple[bytes | None, bytes]:
    """The absolute form's authority and path (RFC 9112, section 3.2)."""
    if target == b"*" and method == b"OPTIONS":
        return None, target
    match = _AUTHORITY.match(target)
    if match is None:
        raise BadRequest(400, "Invalid request target.")
    rest = target[match.end() :]
    return match[1], rest if rest.startswith(b"/") else b"/" + rest


class ChunkedBody:
    """Decodes a body in chunked coding (RFC 9112, section 7.1)."""

    __slots__ = ("_buffer", "_left", "_trailers", "complete")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # bytes of the current chunk, its CRLF included
        self._trailers = -1  # bytes of trailers read; -1 before the last chunk
        self.complete = False

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """The body's bytes in data, and what follows the body once it is complete.

        Raises BadRequest.
        """
        data = self._buffer + data
        position, parts = 0, []
        while True:
            if self._left:
                have = len(data) - position
                body = min(have, self._left - 2)
                if body > 0:
                    parts.append(data[position : position + body])
                    position += body
                    self._left -= body
                if self._left > 2 or len(data) - position < 2:
                    break
                if data[position : position + 2] != b"\r\n":
                    raise BadRequest(400, "Invalid chunk.")
                position += 2
                self._left = 0
            end = data.find(b"\r\n", position)
            limit = MAX_CHUNK_LINE if self._trailers < 0 else MAX_TRAILERS - self._trailers
            if (end if end >= 0 else len(data)) - position > limit:
                raise BadRequest(400, "Chunk line or trailers too long.")
            if end < 0:
                break
            line = data[position:end]
            position = end + 2
            if self._trailers >= 0:
                self._trailers += len(line) + 2
                if not line:
                    self.complete = True
                    self._buffer = b""
                    return parts, data[position:]
                continue
            size = line.partition(b";")[0].rstrip(b" \t")
            if not _HEX.fullmatch(size) or b"\n" in line or b"\r" in line:
                raise BadRequest(400, "Invalid chunk size.")
            self._left = int(size, 16)
            if self._left:
                self._left += 2
            else:
                self._trailers = 0
        self._buffer = data[position:]
        return parts, b""
