"""`realtime.websocket.messages`: JSON texts, and the bytes of a text frame."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

from realtime.events.event import Event
from realtime.events.payload import MAX_TYPE_LENGTH, encode_data
from realtime.events.position import START, Position
from realtime.websocket.messages import (
    PING,
    error_text,
    event_frame,
    event_text,
    reply,
    reset_text,
    text_frame,
)


def read_frames(stream: bytes) -> list[bytes]:
    """The payloads of the text frames that `websockets`, as a client, reads from `stream`."""
    protocol = Protocol(CLIENT, state=OPEN, max_size=None)
    protocol.receive_data(stream)
    assert protocol.parser_exc is None, protocol.parser_exc
    frames = protocol.events_received()
    assert all(frame.opcode is Opcode.TEXT and frame.fin for frame in frames)
    return [frame.data for frame in frames]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_text_frame(length):
    payload = b"x" * length
    # Two, so that a wrong length shifts what follows.
    assert read_frames(text_frame(payload) + text_frame(b"end")) == [payload, b"end"]


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (125, "817d"),
        (126, "817e007e"),
        (65_535, "817effff"),
        (65_536, "817f0000000000010000"),
    ],
)
def test_the_length_is_written_in_its_shortest_form(length, header):
    assert text_frame(b"x" * length).hex().startswith(header + "78")


types = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=MAX_TYPE_LENGTH
)


@given(types | st.sampled_from(['"', "\\", '","id":"x', "ž🐎", "\u2028"]), st.text())
def test_event_text_is_json_whatever_the_event(kind, text):
    event = Event("room.a", kind, encode_data(text, 10**6), "abcdefgh", 7)
    expected = {
        "type": "event",
        "topic": "room.a",
        "id": "abcdefgh-7",
        "event": kind,
        "data": text,
    }
    assert json.loads(event_text(event)) == expected
    [payload] = read_frames(event_frame(event))
    assert json.loads(payload) == expected


def test_an_ephemeral_event_has_no_id():
    said = json.loads(event_text(Event("t", "typing", "true")))
    assert said == {"type": "event", "topic": "t", "event": "typing", "data": True}


@pytest.mark.parametrize("position", [START, Position("abc", 9)])
def test_reset_text(position):
    said = json.loads(reset_text("room.a", position))
    assert said.pop("detail")
    assert said == {"type": "reset", "topic": "room.a", "id": str(position)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PING, {"type": "ping"}),
        (reply("pong"), {"type": "pong"}),
        (reply("pong", 0), {"type": "pong", "ref": 0}),
        (reply("pong", ""), {"type": "pong", "ref": ""}),
        (
            reply("published", {"a": [1]}, id=None),
            {"type": "published", "id": None, "ref": {"a": [1]}},
        ),
        (error_text("bad_id", "Ž: 🐎"), {"type": "error", "code": "bad_id", "detail": "Ž: 🐎"}),
        (error_text("c", "d", "r"), {"type": "error", "code": "c", "detail": "d", "ref": "r"}),
    ],
)
def test_replies(text, said):
    assert json.loads(text) == said
