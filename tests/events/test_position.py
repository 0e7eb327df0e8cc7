"""`realtime.events.position`: ids that clients send back, ours and others."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.events.position import (
    OLDEST,
    START,
    UNBORN,
    Position,
    format_positions,
    new_epoch,
    parse_position,
    parse_positions,
)
from realtime.exceptions import InvalidPosition, InvalidTopic


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("0", OLDEST),
        ("new-0", START),
        ("abc-0", Position("abc", 0)),
        ("abcd1234-1", Position("abcd1234", 1)),
        ("abcd1234abcd1234-10", Position("abcd1234abcd1234", 10)),
        (f"abc-{2**63 - 1}", Position("abc", 2**63 - 1)),
    ],
)
def test_parse_position(text, position):
    assert parse_position(text) == position
    assert str(position) == text


GARBAGE = [
    "",
    " ",
    "1",
    "-1",
    "00",
    "0-0",
    "abc",
    "abc-",
    "-abc",
    "abc-01",
    "abc-00",
    "abc-+1",
    "abc--1",
    "abc-1.0",
    "abc-1 ",
    " abc-1",
    "abc-1\n",
    "abc-\u0661",
    "ABC-1",
    "ab-1",
    "abcd1234abcd12345-1",
    "ábc-1",
    "new-1",
    f"abc-{2**63}",
    "abc-" + "9" * 5000,
    "abc-1,abc-2",
    "room=abc-1",
    "\0",
    "'; DROP TABLE realtime_event; --",
    "a" * 100_000,
]


@pytest.mark.parametrize("text", GARBAGE, ids=lambda text: repr(text)[:24])
def test_what_this_log_never_wrote_is_refused(text):
    with pytest.raises(InvalidPosition, match="send back an id that came with an event") as caught:
        parse_position(text)
    assert len(str(caught.value)) < 500


@given(st.text())
def test_any_text_is_a_position_or_an_error(text):
    with contextlib.suppress(InvalidPosition):
        assert str(parse_position(text)) == text


epochs = st.from_regex(r"[a-z0-9]{4,16}", fullmatch=True)
positions = (
    st.just(START) | st.just(OLDEST) | st.builds(Position, epochs, st.integers(0, 2**63 - 1))
)
topics = st.from_regex(r"[A-Za-z0-9_.-]{1,99}", fullmatch=True)


@given(positions)
def test_round_trip(position):
    assert parse_position(str(position)) == position


@given(st.dictionaries(topics, positions, min_size=1, max_size=5))
def test_round_trip_of_several(standing):
    text = format_positions(standing)
    assert parse_positions(text, list(standing)) == standing
    assert not set(text) & set("\r\n\0 &+%#")


A, B = Position("aaaa", 1), Position("bbbb", 2)


@pytest.mark.parametrize(
    ("text", "names", "positions"),
    [
        ("0", ["a", "b"], {"a": OLDEST, "b": OLDEST}),
        ("a=aaaa-1,b=bbbb-2", ["a", "b"], {"a": A, "b": B}),
        ("b=bbbb-2,a=aaaa-1", ["a", "b"], {"a": A, "b": B}),
        ("a=aaaa-1", ["a", "b"], {"a": A}),
        ("a=aaaa-1,b=bbbb-2", ["b"], {"b": B}),
        ("a=0,b=new-0", ["a", "b"], {"a": OLDEST, "b": START}),
        ("gone=aaaa-1", ["a"], {}),
        ("aaaa-1", ["a"], {"a": A}),
    ],
)
def test_parse_positions(text, names, positions):
    assert parse_positions(text, names) == positions


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "=",
        "a",
        "a=",
        "a=1",
        "a=aaaa-01",
        "aaaa-1",
        "a=aaaa-1,",
        "a=aaaa-1,b",
        "a=a=aaaa-1",
    ],
)
def test_parse_positions_refuses(text):
    with pytest.raises(InvalidPosition):
        parse_positions(text, ["a", "b"])


def test_an_invalid_position_of_another_topic_is_refused():
    with pytest.raises(InvalidPosition):
        parse_positions("a=aaaa-1,gone=nonsense", ["a"])


def test_a_bad_topic_name_is_refused():
    with pytest.raises(InvalidTopic):
        parse_positions("sp ace=aaaa-1", ["sp ace"])


def test_new_epoch():
    made = {new_epoch() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch("[a-z0-9]{8}", epoch) for epoch in made)
    assert UNBORN not in made
