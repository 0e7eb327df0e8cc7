"""`realtime.streaming.sse`: the bytes, and what two independent parsers make of them."""

from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.streaming.sse import (
    KEEPALIVE,
    encode_comment,
    encode_sse,
)

from ..support.event_streams import Dispatched, Stream, httpx_events


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
        ({"retry": 0}, b"retry: 0\n"),
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
        ("hello", b": hello\n"),
        ("", b": \n"),
        ("a\nb\r\nc\rd", b": a\n: b\n: c\n: d\n"),
        ("ž", ": ž\n".encode()),
    ],
)
def test_encode_comment(text, stream):
    assert encode_comment(text) == stream
    assert Stream(stream).events == []


def test_what_dispatches_nothing():
    stream = Stream(encode_sse(id="x-1", retry=1500) + KEEPALIVE)
    assert (stream.events, stream.last_event_id, stream.retry) == ([], "x-1", 1500)


@pytest.mark.parametrize(
    "parser", ["httpx_sse._decoders", "openai._streaming", "anthropic._streaming"]
)
@pytest.mark.parametrize(
    "silent", [KEEPALIVE, encode_comment("a\nb"), encode_sse(retry=5)], ids=str
)
def test_comments_are_no_events_to_clients_that_take_each_blank_line_for_one(parser, silent):
    stream = (encode_sse("1", id="x-1") + silent) * 2 + silent
    # Imported here, once: the SDKs take a second, and each process of the tests collects this.
    reader = import_module(parser).SSEDecoder()
    lines = [reader.decode(line) for line in stream.decode().splitlines()]
    assert [event.data for event in lines if event is not None] == ["1", "1"]


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
