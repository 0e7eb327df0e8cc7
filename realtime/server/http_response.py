"""An HTTP/1 response's bytes: its head, and its body in the right framing. No I/O."""

import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from realtime.server.extensions import Framing

_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
LAST_CHUNK: Final = b"0\r\n\r\n"
_date: tuple[int, bytes] = (0, b"")


def date_line() -> bytes:
    """The Date header (RFC 9110, section 6.6.1), made once per second."""
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


class Response:
    """Builds what goes out for one response.

    `start()` once, then `body()` for each part; both raise ValueError or RuntimeError for what an
    application must not send.
    """

    __slots__ = (
        "_bodiless",
        "_headers",
        "_left",
        "_minor",
        "chunked",
        "close",
        "complete",
        "encoded",
        "event_stream",
        "head_sent",
        "sent",
        "status",
    )

    def __init__(self, method: bytes, minor: int, keep_alive: bool) -> None:
        self.status = 0
        self.close = not keep_alive
        self.chunked = False
        self.complete = False
        self.encoded = False  # a Content-Encoding is set
        self.event_stream = False
        self.head_sent = False
        self.sent = 0  # body bytes
        self._minor = minor
        self._bodiless = method == b"HEAD"
        self._left: int | None = None  # what Content-Length still allows
        self._headers: list[bytes] = []

    @property
    def started(self) -> bool:
        return self.status != 0

    @property
    def framing(self) -> Framing:
        """Return what makes of a part of the body the bytes on the connection."""
        return chunk if self.chunked else identity

    @property
    def streamable(self) -> bool:
        """Whether bytes may be added to the body by someone else, as they are."""
        return not self._bodiless and not self.encoded and self._left is None

    def start(
        self, status: int, headers: Iterable[tuple[bytes, bytes]], server: bytes = b""
    ) -> None:
        """Take the status and the application's headers."""
        if self.status:
            raise RuntimeError("The response has already been started.")
        lines = []
        length: int | None = None
        has_date = has_server = False
        for name, value in headers:
            if not isinstance(name, bytes) or not isinstance(value, bytes):
                raise ValueError(f"Headers are pairs of bytes, not {name!r}: {value!r}.")
            lower = name.lower()
            if lower == b"content-length":
                if not value.isdigit():
                    raise ValueError(f"Content-Length is {value!r}.")
                length = int(value)
            elif lower == b"transfer-encoding":
                continue  # the framing is the server's business
            elif lower == b"connection":
                if b"close" in value.lower():
                    self.close = True
                continue
            elif lower == b"content-type":
                self.event_stream = value.lower().startswith(b"text/event-stream")
            elif lower == b"content-encoding":
                self.encoded = value.strip().lower() != b"identity"
            elif lower == b"date":
                has_date = True
            elif lower == b"server":
                has_server = True
            lines.append(b"%b: %b\r\n" % (name, value))
        joined = b"".join(lines)
        if (
            joined.count(b"\n") != len(lines)
            or joined.count(b"\r") != len(lines)
            or b"\0" in joined
        ):
            raise ValueError("A header contains CR, LF or NUL.")
        if not has_date:
            lines.append(date_line())
        if server and not has_server:
            lines.append(b"server: %b\r\n" % server)
        if 100 <= status < 200 or status in (204, 304):
            self._bodiless = True
        self._left = length
        self.status = status
        self._headers = lines

    def _head(self, size: int, more: bool) -> bytes:
        lines, self._headers = self._headers, []
        if self._left is None and (
            not self._bodiless or (self.status >= 200 and self.status not in (204, 304))
        ):
            if not more and (size or not self._bodiless):
                self._left = size
                lines.append(b"content-length: %d\r\n" % self._left)
            elif self._minor:
                self.chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.close = True  # HTTP/1.0: the end of the connection ends the body
        if self.close:
            lines.append(b"connection: close\r\n")
        elif not self._minor:
            lines.append(b"connection: keep-alive\r\n")
        self.head_sent = True
        reason = _REASONS.get(self.status, b"")
        return b"HTTP/1.1 %d %b\r\n%b\r\n" % (self.status, reason, b"".join(lines))

    def body(self, body: bytes, more: bool) -> bytes:
        """The bytes to send for this part of the body; the head comes before the first."""
        head, chunked = self._begin(len(body), more)
        if self._bodiless:
            return head
        self.sent += len(body)
        if chunked:
            if not more:
                return head + (chunk(body) + LAST_CHUNK if body else LAST_CHUNK)
            return head + chunk(body) if body else head
        return head + body if head else body

    def file(self, size: int, more: bool) -> tuple[bytes, bool, bytes]:
        """For a part that goes out by itself: what is sent before it, whether it is sent, and what
        is sent behind it. Whoever sends it adds to `sent`."""
        head, chunked = self._begin(size, more)
        if self._bodiless or not size:
            return head, False, LAST_CHUNK if chunked and not more and not self._bodiless else b""
        if not chunked:
            return head, True, b""
        return head + b"%x\r\n" % size, True, b"\r\n" if more else b"\r\n" + LAST_CHUNK

    def _begin(self, size: int, more: bool) -> tuple[bytes, bool]:
        """Account for a part of this size: the head if it is due, and whether to make chunks."""
        if not self.status:
            raise RuntimeError("The response has not been started.")
        if self.complete:
            raise RuntimeError("The response is already complete.")
        head = b"" if self.head_sent else self._head(size, more)
        if not more:
            self.complete = True
        if not self._bodiless and not self.chunked and self._left is not None:
            self._left -= size
            if self._left < 0:
                self.close = True
                raise RuntimeError("The body is longer than its Content-Length.")
            if not more and self._left:
                # The client would take the next response for the rest of this one.
                self.close = True
        return head, self.chunked

    @property
    def short(self) -> bool:
        """Complete, but shorter than its Content-Length said."""
        return self.complete and not self._bodiless and bool(self._left)
