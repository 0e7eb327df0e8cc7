"""Ranges and validators: the examples of RFC 9110, and what must not confuse them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.streaming.ranges import Multipart, Range, Unsatisfiable, parse_ranges, range_applies

SIZE = 10_000
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
AT = 784_111_777.0


def parse(header: str | None, size: int = SIZE, most: int = 10) -> list[tuple[int, int]] | None:
    ranges = parse_ranges(header, size, most)
    return None if ranges is None else [tuple(each) for each in ranges]


@pytest.mark.parametrize(
    ("header", "ranges"),
    [
        ("bytes=0-499", [(0, 500)]),  # section 14.1.2
        ("bytes=500-999", [(500, 1000)]),
        ("bytes=-500", [(9500, 10000)]),
        ("bytes=9500-", [(9500, 10000)]),
        ("bytes=0-0,-1", [(0, 1), (9999, 10000)]),
        ("bytes= 0-999, 4500-5499, -1000", [(0, 1000), (4500, 5500), (9000, 10000)]),
        ("bytes=500-600,601-999", [(500, 601), (601, 1000)]),
        ("bytes=500-700,601-999", [(500, 1000)]),  # overlapping: once
        ("BYTES=0-0", [(0, 1)]),
        ("bytes=,0-0,,", [(0, 1)]),  # empty list elements: section 5.6.1
        ("bytes=0-99999", [(0, 10000)]),
        ("bytes=-99999", [(0, 10000)]),
        ("bytes=20-29,0-9", [(20, 30), (0, 10)]),  # in the order asked for
        ("bytes=0-9,99999-", [(0, 10)]),  # one that can't be met among those that can
    ],
)
def test_ranges_that_are_answered(header, ranges):
    assert parse(header) == ranges


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-4",
        "bytes=1-2-3",
        "bytes=1-2;3-4",
        "items=0-5",
        "bytes=0x1-2",
        "bytes=+1-2",
        "bytes=1-2\n",
        "bytes=٣-٤",
        "bytes=" + "9" * 30 + "-",
        "bytes=" + ",".join(["0-0"] * 11),
    ],
)
def test_ranges_that_are_ignored(header):
    assert parse(header) is None


@pytest.mark.parametrize("header", ["bytes=10000-", "bytes=10000-10001", "bytes=-0"])
def test_ranges_that_can_not_be_met(header):
    with pytest.raises(Unsatisfiable):
        parse(header)


def test_of_nothing_no_range_can_be_met():
    for header in ("bytes=0-", "bytes=-0", "bytes=0-0"):
        with pytest.raises(Unsatisfiable):
            parse(header, size=0)


@pytest.mark.parametrize("header", ["bytes=-5", "bytes=-1,0-0"])
def test_the_last_bytes_of_nothing_are_all_of_it(header):
    assert parse(header, size=0) is None


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 120)), min_size=1, max_size=8))
def test_no_byte_is_sent_twice_and_none_left_out(pairs):
    header = "bytes=" + ",".join(f"{a}-{a + b}" for a, b in pairs)
    wanted = {n for a, b in pairs for n in range(a, min(a + b + 1, 100))}
    try:
        ranges = parse(header, size=100)
    except Unsatisfiable:
        assert not wanted
        return
    sent = [n for start, stop in ranges or () for n in range(start, stop)]
    assert len(sent) == len(set(sent))
    assert set(sent) == wanted


@pytest.mark.parametrize(
    ("if_range", "applies"),
    [
        (None, True),
        ('"a"', True),
        ('"b"', False),
        ('W/"a"', False),  # weak ones never match here: section 13.1.5
        (DATE, True),
        ("Sun, 06 Nov 1994 08:49:36 GMT", False),
        ("Sun, 06 Nov 1994 08:49:38 GMT", False),
        ("nonsense", False),
    ],
)
def test_if_range(if_range, applies):
    assert range_applies(if_range, '"a"', AT, now=AT + 60) is applies


def test_if_range_without_validators():
    assert not range_applies('"a"', None, None, AT)
    assert not range_applies('W/"a"', 'W/"a"', AT, AT + 60)
    assert not range_applies(DATE, None, AT, now=AT + 0.5)  # may have changed again since


def test_multipart_knows_its_size():
    ranges = [Range(0, 5), Range(100, 300)]
    body = Multipart(ranges, SIZE, "text/plain; charset=utf-8")
    made = b"".join(body.opening(each) + b"x" * each.size for each in ranges) + body.closing
    assert len(made) == body.content_length
    boundary = body.content_type.rpartition("=")[2].encode()
    assert made.count(b"--" + boundary) == 3
    assert b"Content-Range: bytes 100-299/10000\r\n" in made
