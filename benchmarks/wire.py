"""What a client has to know of WebSocket, SSE and HTTP on the wire. No I/O.

Only the awkward cases come here: split or joined reads, heartbeats, the first of a kind. A read
that equals the broadcast's known bytes is counted without being parsed (see `load.py`).
"""

import base64
import os
from typing import Final, Protocol

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
# Not zero: a server might have a short way for a mask that changes nothing.
MASK: Final = b"\x37\xfa\x21\x3d"


class Refused(Exception):
    """The server answered something else than an open stream."""


class Parser(Protocol):
    """Bytes in, whole messages out."""

    @property
    def opened(self) -> bool:
        """Whether the server has said yes."""

    @property
    def partial(self) -> bool:
        """Whether a message has come in part."""

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now, as payload (WebSocket) or event text (SSE)."""


class Head:
    """Collects a response's status line and headers."""

    def __init__(self, status: bytes) -> None:
        self.opened = False
        self.headers = b""
        self._wanted = b"HTTP/1.1 " + status
        self._buffer = b""

    def take(self, data: bytes) -> bytes:
        """What follows the head; empty while there is none."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return b""
        head, rest = self._buffer[:end], self._buffer[end + 4 :]
        if not head.startswith(self._wanted):
            raise Refused(self._buffer[:300].decode("latin1"))
        self.headers = head.lower()
        self._buffer = b""
        self.opened = True
        return rest


class WebSocketParser:
    """The frames that a server sends. Fragments are joined, control frames kept apart."""

    def __init__(self) -> None:
        self._head = Head(b"101")
        self._buffer = b""
        self._parts: list[bytes] = []
        self.pings: list[bytes] = []

    @property
    def opened(self) -> bool:
        return self._head.opened

    @property
    def partial(self) -> bool:
        return bool(self._buffer or self._parts)

    def feed(self, data: bytes) -> list[bytes]:
        if not self._head.opened:
            data = self._head.take(data)
        buffer = self._buffer + data if self._buffer else data
        messages: list[bytes] = []
        at = 0
        while True:
            frame = _frame(buffer, at)
            if frame is None:
                break
            first, start, at = frame
            payload = buffer[start:at]
            opcode = first & 0x0F
            if opcode == CLOSE:
                raise Refused(f"closed by the server: {payload!r}")
            if opcode == PING:
                self.pings.append(payload)
            elif opcode != PONG:
                self._parts.append(payload)
                if first & 0x80:
                    messages.append(b"".join(self._parts))
                    self._parts = []
        self._buffer = buffer[at:]
        return messages


def _frame(buffer: bytes, at: int) -> tuple[int, int, int] | None:
    """First byte, start and end of the payload of the frame at `at`, if it is whole."""
    left = len(buffer) - at
    if left < 2:
        return None
    length, start = buffer[at + 1] & 0x7F, at + 2
    if length > 125:
        extra = 2 if length == 126 else 8
        if left < 2 + extra:
            return None
        length = int.from_bytes(buffer[start : start + extra], "big")
        start += extra
    if len(buffer) < start + length:
        return None
    return buffer[at], start, start + length


class StreamParser:
    """An SSE response, chunked or not; comments and `retry` alone are no messages."""

    def __init__(self) -> None:
        self._head = Head(b"200")
        self._chunks: Dechunker | None = None
        self._buffer = b""

    @property
    def opened(self) -> bool:
        return self._head.opened

    @property
    def partial(self) -> bool:
        return bool(self._buffer or (self._chunks is not None and self._chunks.partial))

    def feed(self, data: bytes) -> list[bytes]:
        if not self._head.opened:
            data = self._head.take(data)
            if not self._head.opened:
                return []
            if b"transfer-encoding: chunked" in self._head.headers:
                self._chunks = Dechunker()
        if self._chunks is not None:
            data = self._chunks.feed(data)
            if self._chunks.ended:
                raise Refused("the stream was ended by the server")
        *events, self._buffer = (self._buffer + data).replace(b"\r\n", b"\n").split(b"\n\n")
        return [event for event in events if event.startswith(b"data:") or b"\ndata:" in event]


class Dechunker:
    """Undoes the chunked transfer coding (RFC 9112, section 7.1)."""

    def __init__(self) -> None:
        self._buffer = b""
        self.ended = False

    @property
    def partial(self) -> bool:
        """Whether a chunk has come in part."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> bytes:
        """The body's bytes in the chunks that are complete now."""
        buffer = self._buffer + data if self._buffer else data
        body: list[bytes] = []
        at = 0
        while (end := buffer.find(b"\r\n", at)) >= 0:
            size = int(buffer[at:end].split(b";")[0], 16)
            start = end + 2
            if len(buffer) < start + size + 2:
                break
            body.append(buffer[start : start + size])
            at = start + size + 2
            self.ended = self.ended or not size
        self._buffer = buffer[at:]
        return b"".join(body)


class BodyParser:
    """A download: the body's bytes as they come, and whether its end has come too."""

    def __init__(self) -> None:
        self._head = Head(b"200")
        self._chunks: Dechunker | None = None
        self.left: int | None = None  # bytes of a body that has said its length

    @property
    def opened(self) -> bool:
        """Whether the server has said yes."""
        return self._head.opened

    @property
    def ended(self) -> bool:
        """Whether all of it is there: a connection that is closed is no end."""
        return self.left == 0 if self._chunks is None else self._chunks.ended

    def feed(self, data: bytes) -> bytes:
        """The body's bytes in `data`, or that are complete now."""
        if not self._head.opened:
            data = self._head.take(data)
            if not self._head.opened:
                return b""
            if b"transfer-encoding: chunked" in self._head.headers:
                self._chunks = Dechunker()
            elif b"content-length:" in self._head.headers:
                self.left = _content_length(self._head.headers)
            else:
                raise Refused("the body has neither a length nor chunks")
        if self._chunks is not None:
            return self._chunks.feed(data)
        self.skip(len(data))
        return data

    def skip(self, size: int) -> None:
        """So many bytes of a body with a length were read elsewhere."""
        assert self.left is not None
        if size > self.left:
            raise Refused("the body is longer than it said")
        self.left -= size


class AnswerParser:
    """Answers to requests on a connection that is kept alive."""

    def __init__(self) -> None:
        self.buffer = b""
        self.body = b""  # of the last complete answer

    def feed(self, data: bytes) -> list[int]:
        """The statuses of the answers that are complete now."""
        self.buffer += data
        statuses: list[int] = []
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head, start = self.buffer[:end].lower(), end + 4
            if b"transfer-encoding: chunked" in head:
                last = self.buffer.find(b"0\r\n\r\n", start)
                if last < 0:
                    break
                finish = last + 5
            else:
                finish = start + _content_length(head)
                if len(self.buffer) < finish:
                    break
            statuses.append(int(head[9:12]))
            self.body = self.buffer[start:finish]
            self.buffer = self.buffer[finish:]
        return statuses


def _content_length(head: bytes) -> int:
    _, found, rest = head.partition(b"content-length:")
    return int(rest.split(b"\r\n")[0]) if found else 0


def text_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """A masked frame, as a client sends it."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65_536:
        head = bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0xFF)) + size.to_bytes(8, "big")
    mask = (MASK * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")
    return head + MASK + masked.to_bytes(size, "big")


def websocket_request(host: str, path: str, headers: bytes = b"") -> bytes:
    """A handshake with the Origin a page of the same site would send."""
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nOrigin: http://{host}\r\n"
    ).encode() + _end(headers)


def stream_request(host: str, path: str, headers: bytes = b"") -> bytes:
    """A request for server-sent events."""
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n"
    return head.encode() + _end(headers)


def get_request(host: str, path: str, headers: bytes = b"") -> bytes:
    """A request for anything, uncompressed."""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n".encode() + _end(headers)


def post_request(host: str, path: str, body: bytes, headers: bytes = b"") -> bytes:
    """A JSON POST."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
    )
    return head.encode() + _end(headers) + body


def _end(headers: bytes) -> bytes:
    return headers + b"\r\n\r\n" if headers else b"\r\n"
