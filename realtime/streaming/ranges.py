"""Range and validators of HTTP (RFC 9110, sections 13 and 14) for a body of known size. No I/O."""

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from django.utils.http import http_date, parse_http_date_safe

_RANGES: Final = re.compile(r"bytes=([0-9,\- \t]*)", re.IGNORECASE)
_RANGE: Final = re.compile(r"([0-9]{1,20})-([0-9]{0,20})|-([0-9]{1,20})")
STRONG_AFTER: Final = 1.0  # seconds; a date is a strong validator only of what is older


class Range(NamedTuple):
    """The bytes from `start` up to, but not including, `stop`."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    def content_range(self, size: int) -> str:
        """Return the header's value for this part of `size` bytes."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


class Unsatisfiable(Exception):
    """None of the ranges lies in the body: 416."""


def parse_ranges(header: str | None, size: int, most: int) -> list[Range] | None:
    """Return the ranges to send, or None for the whole body.

    A header that is malformed, of another unit, or asks for more than `most` parts is ignored, as
    section 14.2 wants or allows. Parts that overlap are sent once (section 17.15); else they keep
    the order in which they were asked for.
    """
    match = _RANGES.fullmatch(header or "")
    if match is None:
        return None
    specs = [spec for part in match[1].split(",") if (spec := part.strip(" \t"))]
    if not specs or len(specs) > most:
        return None
    ranges: list[Range] = []
    for spec in specs:
        found = _RANGE.fullmatch(spec)
        if found is None:
            return None
        first, last, suffix = found.groups()
        if suffix is not None:
            if not size and int(suffix):
                return None  # it can be met (section 14.1.2), and has no Content-Range
            start, stop = max(0, size - int(suffix)), size
        else:
            start, stop = int(first), min(size, int(last) + 1 if last else size)
            if last and int(last) < int(first):
                return None
        if start < stop:
            ranges.append(Range(start, stop))
    if not ranges:
        raise Unsatisfiable(f"{header!r:.200} is not within {size} bytes.")
    return _without_overlaps(ranges)


def _without_overlaps(ranges: list[Range]) -> list[Range]:
    merged: list[Range] = []
    for each in sorted(ranges):
        if merged and each.start < merged[-1].stop:
            merged[-1] = Range(merged[-1].start, max(each.stop, merged[-1].stop))
        else:
            merged.append(each)
    return ranges if len(merged) == len(ranges) else merged


def range_applies(
    if_range: str | None, etag: str | None, modified: float | None, now: float
) -> bool:
    """Whether the client's part is of this very representation (If-Range, section 13.1.5)."""
    if if_range is None:
        return True
    if if_range.startswith(('"', "W/")):
        return etag is not None and not etag.startswith("W/") and if_range == etag
    if modified is None or int(modified) > now - STRONG_AFTER:
        return False
    return parse_http_date_safe(if_range) == int(modified)


class Multipart:
    """A multipart/byteranges body (section 14.6): the pieces between its parts, and its size."""

    def __init__(self, ranges: Sequence[Range], size: int, content_type: str) -> None:
        self._boundary = secrets.token_hex(16)
        self._ranges = ranges
        self._size = size
        self._part_type = content_type
        self.content_type = f"multipart/byteranges; boundary={self._boundary}"

    def opening(self, part: Range) -> bytes:
        """Return what stands before a part."""
        return (
            f"\r\n--{self._boundary}\r\nContent-Type: {self._part_type}\r\n"
            f"Content-Range: {part.content_range(self._size)}\r\n\r\n"
        ).encode("latin1")

    @property
    def closing(self) -> bytes:
        return f"\r\n--{self._boundary}--\r\n".encode()

    @property
    def content_length(self) -> int:
        parts = sum(len(self.opening(part)) + part.size for part in self._ranges)
        return parts + len(self.closing)


def last_modified(timestamp: float) -> str:
    """Return the header's value; never in the future (section 8.8.2.1)."""
    return http_date(min(timestamp, datetime.now(UTC).timestamp()))
