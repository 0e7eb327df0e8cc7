"""`realtime.events.event`: the event and its encoded forms."""

import pytest

from realtime.events.event import Event, last_position
from realtime.events.position import Position, parse_position


def test_a_logged_event_has_an_id_that_is_its_position():
    event = Event("t", "message", "1", "abcd1234", 7)
    assert event.id == "abcd1234-7"
    assert event.position == parse_position(event.id) == Position("abcd1234", 7)


def test_an_ephemeral_event_has_none():
    assert Event("t", "typing", "1").id is None


def test_metadata_counts_in_its_size_and_tells_events_apart():
    one, other = (Event("t", "message", '"ž"', "abc", 7, meta) for meta in (None, '{"a":"ž"}'))
    assert (one.size, other.size) == (4, 14)
    assert one != other


def test_it_is_encoded_once_for_each_encoder():
    calls = []

    def one(event):
        calls.append("one")
        return b"one"

    def other(event):
        calls.append("other")
        return event.data.encode()

    event = Event("t", "message", "1", "abc", 7)
    first = [event.encoded(one) for _ in range(3)]
    assert first[0] is first[2]
    assert event.encoded(other) == b"1"
    assert calls == ["one", "other"]


def test_it_is_framed_once_for_each_framing():
    calls = []

    def encode(event):
        return event.data.encode()

    def framed(body):
        calls.append(body)
        return b"<%b>" % body

    event = Event("t", "message", "1", "abc", 7)
    assert event.encoded(encode, framed) is event.encoded(encode, framed)
    assert (event.encoded(encode, framed), event.encoded(encode)) == (b"<1>", b"1")
    assert calls == [b"1"]
    event.forget_encoded()
    assert event.encoded(encode, framed) == b"<1>"
    assert calls == [b"1", b"1"]


def test_what_follows_a_position_and_what_was_read_there():
    here = Position("abc", 7)
    at_7, at_8, at_9 = (Event("t", "message", "1", "abc", offset) for offset in (7, 8, 9))
    elsewhere, ephemeral = Event("t", "message", "1", "new", 8), Event("t", "message", "1")
    every = (at_7, at_8, at_9, elsewhere, ephemeral)
    assert [event.follows(here) for event in every] == [False, True, False, False, True]
    assert [event.is_read_at(here) for event in every] == [True, False, False, False, False]
    assert last_position([at_8, ephemeral], here) == Position("abc", 8)
    assert last_position([ephemeral], here) is here


def test_an_encoder_that_fails_is_asked_again():
    answers = iter([ValueError("no"), b"yes"])

    def encoder(event):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    event = Event("t", "message", "1")
    with pytest.raises(ValueError, match="no"):
        event.encoded(encoder)
    assert event.encoded(encoder) == b"yes"


def test_equality():
    def make(**changes):
        fields = {"topic": "t", "type": "message", "data": "1", "epoch": "abc", "offset": 7}
        return Event(**{**fields, **changes})

    same = make()
    same.encoded(lambda event: b"x")
    assert make() == same
    assert hash(make()) == hash(same)
    for name, value in (("topic", "u"), ("type", "x"), ("data", "2"), ("epoch", "abd")):
        assert make(**{name: value}) != same
    assert make(offset=8) != same
    assert same != "t"


def test_repr_is_short():
    assert repr(Event("t", "message", "1", "abc", 7)) == "<Event t abc-7 message 1>"
    assert len(repr(Event("t", "message", "x" * 10_000))) < 120
