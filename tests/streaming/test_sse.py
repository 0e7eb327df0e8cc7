"""`realtime.streaming.sse`: the bytes, and what two independent parsers make of them."""

import json
import re
from typing import NamedTuple

import pytest
from httpx_sse._decoders import SSEDecoder
from hypothesis import given
from hypothesis import strategies as st

from realtime.events.event import Event
from realtime.events.payload import encode_data
from realtime.events.position import Position
from realtime.streaming.sse import (
    KEEPALIVE,
    encode_comment,
    encode_event,
    encode_event_among,
    encode_reset,
    encode_sse,
)


class Dispatched(NamedTuple):
    type: str
    data: str
    id: str


class Stream:
    """The "event stream interpretation" of WHATWG HTML, section 9.2.6, step by step."""

    def __init__(self, stream: bytes) -> None:
        self.events: list[Dispatched] = []
        self.retry: int | None = None
        self.last_event_id = ""
        text = stream.decode("utf-8").removeprefix("\ufeff")
        data = kind = id_buffer = ""
        *lines, rest = re.split("\r\n|\r|\n", text)
        assert rest == "", "the stream ends in the middle of a line"
        for line in lines:
            if line == "":
                self.last_event_id = id_buffer
                if data:
                    message = Dispatched(kind or "message", data[:-1], id_buffer)
                    self.events.append(message)
                data = kind = ""
                continue
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                kind = value
            elif field == "data":
                data += value + "\n"
            elif field == "id" and "\0" not in value:
                id_buffer = value
            elif field == "retry" and re.fullmatch("[0-9]+", value):
                self.retry = int(value)
        assert data == kind == "", "the stream ends in the middle of an event"


def httpx_events(stream: bytes) -> list[Dispatched]:
    """What httpx-sse reads that has data; once an id was sent, it also gives what has none."""
    decoder = SSEDecoder()
    lines = re.split("\r\n|\r|\n", stream.decode())
    found = [event for line in lines if (event := decoder.decode(line)) is not None]
    return [Dispatched(event.event, event.data, event.id) for event in found if event.data]


@pytest.mark.parametrize(
    ("arguments", "stream"),
    [
        ({"data": "a"}, b"data: a\n\n"),
        ({"data": ""}, b"data: \n\n"),
        ({"data": " a "}, b"data:  a \n\n"),
        ({"data": ":a"}, b"data: :a\n\n"),
        ({"data": "a\nb"}, b"data: a\ndata: b\n\n"),
        ({"data": "a\rb"}, b"data: a\ndata: b\n\n"),
        ({"data": "a\r\nb"}, b"data: a\ndata: b\n\n"),
        ({"data": "a\n\rb"}, b"data: a\ndata: \ndata: b\n\n"),
        ({"data": "a\n"}, b"data: a\ndata: \n\n"),
        ({"data": "\n"}, b"data: \ndata: \n\n"),
        ({"data": "a\0b"}, b"data: a\0b\n\n"),
        ({"data": "a\x0b\x0c\x1c\x85b"}, b"data: a\x0b\x0c\x1c\xc2\x85b\n\n"),
        ({"data": "a\u2028b\u2029"}, "data: a\u2028b\u2029\n\n".encode()),
        ({"data": "žluť 🐎"}, "data: žluť 🐎\n\n".encode()),
        ({"data": "a", "event": "e"}, b"event: e\ndata: a\n\n"),
        ({"data": "a", "event": " e: 🐎"}, "event:  e: 🐎\ndata: a\n\n".encode()),
        ({"data": "a", "id": "x-1"}, b"id: x-1\ndata: a\n\n"),
        ({"data": "a", "id": ""}, b"id: \ndata: a\n\n"),
        ({"retry": 0}, b"retry: 0\n\n"),
        ({"retry": 2000, "id": "i"}, b"id: i\nretry: 2000\n\n"),
        (
            {"data": "d", "event": "e", "id": "i", "retry": 1},
            b"event: e\nid: i\nretry: 1\ndata: d\n\n",
        ),
        ({}, b"\n"),
    ],
    ids=str,
)
def test_encode_sse(arguments, stream):
    assert encode_sse(**arguments) == stream


@pytest.mark.parametrize("field", ["event", "id"])
@pytest.mark.parametrize("value", ["a\nb", "a\r", "\r\n", "\0", "a\0b"])
def test_line_breaks_and_nul_are_refused_where_they_can_not_be_written(field, value):
    with pytest.raises(ValueError, match=f"{field} is .*CR, LF and NUL"):
        encode_sse("data", **{field: value})


def test_a_negative_retry_is_refused():
    with pytest.raises(ValueError, match="-1 ms"):
        encode_sse(retry=-1)


@pytest.mark.parametrize(
    ("text", "stream"),
    [
        ("hello", b": hello\n\n"),
        ("", b": \n\n"),
        ("a\nb\r\nc\rd", b": a\n: b\n: c\n: d\n\n"),
        ("ž", ": ž\n\n".encode()),
    ],
)
def test_encode_comment(text, stream):
    assert encode_comment(text) == stream
    assert Stream(stream).events == []


def test_what_dispatches_nothing():
    stream = Stream(encode_sse(id="x-1", retry=1500) + KEEPALIVE)
    assert (stream.events, stream.last_event_id, stream.retry) == ([], "x-1", 1500)


@pytest.mark.parametrize(
    ("event", "stream"),
    [
        (Event("t", "message", "1", "abc", 7), b"id: abc-7\ndata: 1\n\n"),
        (Event("t", "joined", "{}", "abc", 7), b"event: joined\nid: abc-7\ndata: {}\n\n"),
        (Event("t", "message", '""'), b'data: ""\n\n'),
        (Event("t", "typing", "null"), b"event: typing\ndata: null\n\n"),
    ],
)
def test_encode_event(event, stream):
    assert encode_event(event) == stream


@pytest.mark.parametrize(
    ("event", "stream_id", "stream"),
    [
        (
            Event("room.a", "message", '"x"', "abc", 7),
            "room.a=abc-7,b=0",
            b'id: room.a=abc-7,b=0\ndata: {"topic":"room.a","data":"x"}\n\n',
        ),
        (
            Event("t", "typing", "[1]"),
            None,
            b'event: typing\ndata: {"topic":"t","data":[1]}\n\n',
        ),
    ],
)
def test_encode_event_among(event, stream_id, stream):
    assert encode_event_among(event, stream_id) == stream


def test_encode_reset():
    stream = Stream(encode_reset("room.a", Position("abc", 9), "room.a=abc-9,b=x1y-2"))
    [event] = stream.events
    assert (event.type, event.id) == ("reset", "room.a=abc-9,b=x1y-2")
    assert json.loads(event.data) == {"topic": "room.a", "id": "abc-9"}


# Surrogates have no UTF-8; the rest is what `encode_sse` promises to write.
characters = st.characters(exclude_categories=["Cs"])
texts = st.text(characters) | st.text(st.sampled_from("a: \r\n\0\u2028\x85\ufeff"))
fields = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"))
messages = st.tuples(texts, fields, fields)


@given(st.lists(messages, max_size=5))
def test_round_trip(sent):
    stream = b"".join(encode_sse(data, event=event, id=id) + KEEPALIVE for data, event, id in sent)
    got = [
        Dispatched(event or "message", data.replace("\r\n", "\n").replace("\r", "\n"), id)
        for data, event, id in sent
    ]
    assert Stream(stream).events == got
    assert httpx_events(stream) == [event for event in got if event.data]


@given(st.text(characters), st.integers(1, 2**63 - 1))
def test_events_of_two_topics_on_one_stream(text, offset):
    event = Event("room.a", "said", encode_data({"text": text}, 10**6), "abcdefgh", offset)
    stream = encode_event(event) + encode_event_among(event, f"room.a={event.id}")
    alone, among = Stream(stream).events
    assert alone == ("said", event.data, f"abcdefgh-{offset}")
    assert among[::2] == ("said", f"room.a=abcdefgh-{offset}")
    assert json.loads(among.data) == {"topic": "room.a", "data": {"text": text}}
    assert httpx_events(stream) == [alone, among]
