"""An HTTP/1 response's bytes: its head, and its body in the right framing. No I/O."""

import re
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from enum import IntEnum
from http import HTTPStatus
from typing import Final

from realtime.server import header_names
from realtime.server.extensions import Framing

_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
LAST_CHUNK: Final = b"0\r\n\r\n"
_BODILESS: Final = frozenset({204, 304})
_EVENT_ENDS: Final = (b"\n\n", b"\r\r", b"\r\n\r\n")
# Lines that make no event: a stream may end after them as well as before.
_NO_EVENT: Final = re.compile(rb"(?:(?:id|retry)?:[^\r\n]*(?:\r\n|\n|\r))+")
_date: tuple[int, bytes] = (0, b"")


def date_line() -> bytes:
    """Return the Date header (RFC 9110, section 6.6.1), made once per second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, b"date: " + formatdate(now, usegmt=True).encode() + b"\r\n")
    return _date[1]


def chunk(body: bytes) -> bytes:
    """Return body as one chunk of the chunked coding (RFC 9112, section 7.1). Not an empty one."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def identity(body: bytes) -> bytes:
    """Return body as it is: what HTTP/1.0 has in place of chunks."""
    return body


class ResponseState(IntEnum):
    """How far a response has come; the order counts."""

    WAITING = 0  # for its status
    STARTED = 1  # the head is known
    HEAD_SENT = 2
    COMPLETE = 3


class Response:
    """Build what goes out for one response.

    `start()` once, then `body()` for each part; both raise ValueError, TypeError or RuntimeError
    for what an application must not send.
    """

    __slots__ = (
        "_headers",
        "_minor",
        "_tail",
        "chunked",
        "close",
        "has_date",
        "has_server",
        "is_bodiless",
        "is_encoded",
        "is_event_stream",
        "left",
        "sent",
        "state",
        "status",
    )

    def __init__(self, method: bytes, minor: int, keep_alive: bool) -> None:
        self.state = ResponseState.WAITING
        self.status = 0
        self.close = not keep_alive
        self.chunked = False
        self.is_encoded = False  # a Content-Encoding is set
        self.is_event_stream = False
        self.has_date = self.has_server = False
        self.sent = 0  # body bytes
        self._minor = minor
        self.is_bodiless = method == b"HEAD"  # it ends with its head
        self.left: int | None = None  # what Content-Length still allows
        self._headers: list[bytes] = []
        self._tail = b""  # the end of an event stream's body, to see where an event ends

    @property
    def is_head_sent(self) -> bool:
        """Return whether the status can't be changed any more."""
        return self.state >= ResponseState.HEAD_SENT

    @property
    def framing(self) -> Framing:
        """Return what makes of a part of the body the bytes on the connection."""
        return chunk if self.chunked else identity

    @property
    def is_streamable(self) -> bool:
        """Return whether something else may add bytes to the body, as they are."""
        return not self.is_bodiless and not self.is_encoded and self.left is None

    @property
    def is_between_events(self) -> bool:
        """Return whether it is an event stream that may end here without cutting off an event."""
        return (
            self.is_event_stream
            and self.is_streamable
            and (not self._tail or self._tail.endswith(_EVENT_ENDS))
        )

    @property
    def is_short(self) -> bool:
        """Return whether it is complete, but shorter than its Content-Length said."""
        return self.state is ResponseState.COMPLETE and not self.is_bodiless and bool(self.left)

    def start(
        self, status: int, headers: Iterable[tuple[bytes, bytes]], server: bytes = b""
    ) -> None:
        """Take the status and the application's headers."""
        if self.state is not ResponseState.WAITING:
            raise RuntimeError("The response has already been started.")
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise ValueError(f"{status!r} is not the status of a final response.")
        self.status = status
        lines = []
        known, special = header_names.known.get, _SPECIAL.get
        for name, value in headers:
            if not isinstance(name, bytes) or not isinstance(value, bytes):
                raise ValueError(f"Headers are pairs of bytes, not {name!r}: {value!r}.")
            lower = known(name) or header_names.lower(name)
            take = special(lower)
            if take is None or take(self, value):
                lines.append(b"%b: %b\r\n" % (name, value))
        _check_lines(lines)
        if not self.has_date:
            lines.append(date_line())
        if server and not self.has_server:
            lines.append(b"server: %b\r\n" % server)
        if status in _BODILESS:
            self.is_bodiless = True
        self.state = ResponseState.STARTED
        self._headers = lines

    def _head(self, size: int, more: bool) -> bytes:
        lines, self._headers = self._headers, []
        if self.left is None and (not self.is_bodiless or self.status not in _BODILESS):
            if not more and (size or not self.is_bodiless):
                self.left = size
                lines.append(b"content-length: %d\r\n" % size)
            elif self._minor:
                self.chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.close = True  # HTTP/1.0: the end of the connection ends the body
        if self.close:
            lines.append(b"connection: close\r\n")
        elif not self._minor:
            lines.append(b"connection: keep-alive\r\n")
        reason = _REASONS.get(self.status, b"")
        return b"HTTP/1.1 %d %b\r\n%b\r\n" % (self.status, reason, b"".join(lines))

    def body(self, body: bytes, more: bool) -> bytes:
        """Return the bytes to send for this part of the body; the head comes before the first."""
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"A body is bytes, not {type(body).__name__}.")
        head, chunked = self._begin(len(body), more)
        if self.is_bodiless:
            return head
        self.sent += len(body)
        if self.is_event_stream and body and not self._is_no_event(body):
            self._tail = (self._tail + body)[-4:]
        if chunked:
            if not more:
                return head + (chunk(body) + LAST_CHUNK if body else LAST_CHUNK)
            return head + chunk(body) if body else head
        return head + body if head else body

    def _is_no_event(self, body: bytes) -> bool:
        """Return whether this part of an event stream leaves it where it is."""
        begins_a_line = not self._tail or self._tail.endswith((b"\n", b"\r"))
        return begins_a_line and _NO_EVENT.fullmatch(body) is not None

    def file(self, size: int, more: bool) -> tuple[bytes, bool, bytes]:
        """Account for a part that goes out by itself; what sends it adds to `sent`.

        Return what is sent before it, whether it is sent at all, and what is sent after it.
        """
        head, chunked = self._begin(size, more)
        if self.is_bodiless or not size:
            ends = chunked and not more and not self.is_bodiless
            return head, False, LAST_CHUNK if ends else b""
        if not chunked:
            return head, True, b""
        return head + b"%x\r\n" % size, True, b"\r\n" if more else b"\r\n" + LAST_CHUNK

    def _begin(self, size: int, more: bool) -> tuple[bytes, bool]:
        """Account for a part of this size: the head if it is due, and whether to make chunks."""
        state = self.state
        if state is ResponseState.WAITING:
            raise RuntimeError("The response has not been started.")
        if state is ResponseState.COMPLETE:
            raise RuntimeError("The response is already complete.")
        left = self.left
        if left is not None and not self.is_bodiless:
            self.left = left = left - size
            if left < 0:
                self.close = True
                raise RuntimeError("The body is longer than its Content-Length.")
            if not more and left:
                # The client would take the next response for the rest of this one.
                self.close = True
        head = b"" if state is ResponseState.HEAD_SENT else self._head(size, more)
        self.state = ResponseState.HEAD_SENT if more else ResponseState.COMPLETE
        if left is None and self.left is not None:
            self.left = 0  # all of it was in this part
        return head, self.chunked


# What the headers that concern the server itself say. Each returns whether it is sent as it is.


def _refuse_name(response: Response, value: bytes) -> bool:
    raise ValueError(f"The header of {value!r} has no valid name.")


def _take_connection(response: Response, value: bytes) -> bool:
    if b"close" in value.lower():
        response.close = True
    return b"upgrade" in value.lower()  # RFC 9110, section 7.8: an option of the application's


def _take_content_encoding(response: Response, value: bytes) -> bool:
    response.is_encoded = value.strip().lower() != b"identity"
    return True


def _take_content_length(response: Response, value: bytes) -> bool:
    if not value.isdigit() or response.left is not None:
        raise ValueError(f"Content-Length is {value!r}, or is there twice.")
    response.left = int(value)
    return response.status != 204  # RFC 9110, section 8.6; Django's middleware sets it there too


def _take_content_type(response: Response, value: bytes) -> bool:
    response.is_event_stream = value.lower().startswith(b"text/event-stream")
    return True


def _take_date(response: Response, value: bytes) -> bool:
    response.has_date = True
    return True


def _take_server(response: Response, value: bytes) -> bool:
    response.has_server = True
    return True


def _take_transfer_encoding(response: Response, value: bytes) -> bool:
    return False  # the framing is the server's business


_SPECIAL: Final[dict[bytes, Callable[[Response, bytes], bool]]] = {
    b"": _refuse_name,
    b"connection": _take_connection,
    b"content-encoding": _take_content_encoding,
    b"content-length": _take_content_length,
    b"content-type": _take_content_type,
    b"date": _take_date,
    b"server": _take_server,
    b"transfer-encoding": _take_transfer_encoding,
}


def _check_lines(lines: list[bytes]) -> None:
    joined = b"".join(lines)
    count = len(lines)
    if joined.count(b"\n") != count or joined.count(b"\r") != count or b"\0" in joined:
        raise ValueError("A header contains CR, LF or NUL.")
