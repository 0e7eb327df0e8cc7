"""`realtime.events.trace_context`: W3C's `traceparent`, of a span or of a request."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry import context, trace

from realtime.events.trace_context import (
    add_traceparent,
    current_traceparent,
    incoming_trace,
    parse_traceparent,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{SPAN}-01"


@contextmanager
def span(trace_id: int, span_id: int, flags: int = 1) -> Iterator[None]:
    """An active span, as an SDK makes them; none is needed to have one."""
    own = trace.SpanContext(trace_id, span_id, False, trace.TraceFlags(flags))
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(own)))
    try:
        yield
    finally:
        context.detach(token)


@pytest.mark.parametrize(
    ("header", "read"),
    [
        (GIVEN, GIVEN),
        (f" {GIVEN}\t", GIVEN),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"cc-{TRACE}-{SPAN}-01", GIVEN),
        (f"cc-{TRACE}-{SPAN}-01-what-comes", GIVEN),
        (None, None),
        ("", None),
        (f"{GIVEN}-more", None),
        (f"cc-{TRACE}-{SPAN}-01more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (GIVEN.upper(), None),
        (GIVEN[:-1], None),
        (f"00-{TRACE[:-1]}g-{SPAN}-01", None),
        (f'{GIVEN}"', None),
        (f"{GIVEN},{GIVEN}", None),
        (f"{GIVEN}\n", None),
    ],
)
def test_a_header_is_read_as_the_standard_says(header, read):
    assert parse_traceparent(header) == read


def test_the_active_span_counts_and_else_what_the_request_has_named():
    assert current_traceparent() is None
    with incoming_trace(GIVEN):
        assert current_traceparent() == GIVEN
        with span(1, 2, flags=0):
            assert current_traceparent() == f"00-{1:032x}-{2:016x}-00"
        with span(0, 2):  # as where tracing is off
            assert current_traceparent() == GIVEN
        with incoming_trace("nonsense"):
            assert current_traceparent() is None
    assert current_traceparent() is None


def test_it_stands_beside_the_metadata_that_there_is():
    assert add_traceparent(None) is None
    assert add_traceparent('{"a":1}') == '{"a":1}'
    with incoming_trace(GIVEN):
        own = f'"traceparent":"{GIVEN}"'
        assert add_traceparent(None) == add_traceparent("{}") == f"{{{own}}}"
        assert add_traceparent('{"a":{"b":1}}') == f'{{"a":{{"b":1}},{own}}}'
        assert add_traceparent('{"traceparent":"x"}') == '{"traceparent":"x"}'


def test_nothing_is_imported_for_it():
    code = (
        "import sys; from realtime.events.trace_context import current_traceparent as now; "
        "assert now() is None; assert 'opentelemetry' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
