"""The trace that an event belongs to: `traceparent` of W3C Trace Context, in its metadata."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_TRACEPARENT: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})(?P<more>-.*)?"
)
_NOTHING: Final = re.compile(r"0{32}-|.{33}0{16}-")  # a trace or a span of zeros


# Of a publication by HTTP: where no span is active, what its client has named counts.
_incoming: Final = ContextVar[str | None]("incoming_traceparent", default=None)


@contextmanager
def incoming_trace(header: str | None) -> Iterator[None]:
    """Let events published within the block belong to the trace that a request's header names."""
    # Reset, since the next request of a connection may inherit the context of this one.
    token = _incoming.set(parse_traceparent(header))
    try:
        yield
    finally:
        _incoming.reset(token)


def parse_traceparent(header: str | None) -> str | None:
    """Return a `traceparent` header's value as version 00 has it; None where it is not valid.

    Of a higher version as much is read as the standard says; it may have more after it.
    """
    found = _TRACEPARENT.fullmatch(header.strip(" \t")) if header else None
    if found is None or found["version"] == "ff" or _NOTHING.match(found["trace"]):
        return None
    if found["version"] == "00" and found["more"] is not None:
        return None
    return f"00-{found['trace']}"


def current_traceparent() -> str | None:
    """Return the `traceparent` of the active OpenTelemetry span, else what the request has named.

    Nothing is imported: where nobody has imported OpenTelemetry no span is active.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            return (
                f"00-{context.trace_id:032x}-{context.span_id:016x}"
                f"-{int(context.trace_flags) & 0xFF:02x}"
            )
    return _incoming.get()


def add_traceparent(meta: str | None) -> str | None:
    """Return an event's metadata, JSON text of an object, with the trace that is current, if any.

    One that the metadata has already stays.
    """
    traceparent = current_traceparent()
    if traceparent is None or (meta is not None and '"traceparent":' in meta):
        return meta
    more = "" if meta is None or meta == "{}" else f"{meta[1:-1]},"
    return f'{{{more}"traceparent":"{traceparent}"}}'
