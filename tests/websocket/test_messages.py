"""`realtime.websocket.messages`: the JSON texts."""

import json
from typing import Any
from unittest.mock import Mock

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from realtime.events.event import Event
from realtime.events.payload import MAX_TYPE_LENGTH, encode_data
from realtime.events.position import START, Position
from realtime.exceptions import DataTooLarge, NotIdentified
from realtime.limits.connection_limits import PUBLISH_BYTES
from realtime.limits.publishing import max_body_bytes
from realtime.websocket import messages
from realtime.websocket.messages import (
    AROUND_DATA,
    PING,
    REF_LENGTH,
    encode_event,
    encode_event_with_meta,
    error_text,
    event_text,
    published_text,
    ref_in,
    reply,
    request_of,
    reset_text,
    token_of,
)

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
    assert json.loads(encode_event(event)) == expected


def test_an_ephemeral_event_has_no_id():
    said = json.loads(event_text(Event("t", "typing", "true")))
    assert said == {"type": "event", "topic": "t", "event": "typing", "data": True}


@pytest.mark.parametrize("meta", [None, '{"sender":{"id":1}}'])
def test_metadata_stands_at_the_end_of_its_frame(meta):
    event = Event("t", "message", "{}", "abc", 7, meta)
    said = json.loads(encode_event_with_meta(event))
    assert said.pop("meta", None) == (meta and json.loads(meta))
    assert encode_event(event) == json.dumps(said, separators=(",", ":")).encode()


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


LONG = "x" * 5_000


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ('{"data": {"ref": 1}, "ref": 2}', 2),  # short: it is parsed
        ('{"ref": {"any": ["value"]}}', {"any": ["value"]}),
        ("{", None),
        ("[1]", None),
        (f'{{"ref": 1, "data": "{LONG}"}}', 1),
        (f' {{ "type" : "publish" ,\n"key":"","ref": -12 , "data": "{LONG}"}}', -12),
        (f'{{"type":"publish","ref":"ž🐎","data":"{LONG}"}}', "ž🐎"),
        (f'{{"type":"publish","data":"{LONG}","ref":1}}', None),
        (f'{{"data":{{"ref":1}},"more":"{LONG}"}}', None),
        (f'{{"type":"publish","ref":1.5,"data":"{LONG}"}}', None),
        (f'{{"type":"publish","ref":"\\u0041","data":"{LONG}"}}', None),
        (f'"ref":1,"data":"{LONG}"', None),
        (LONG, None),
    ],
)
def test_the_ref_of_what_was_refused_before_it_is_parsed(text, ref):
    assert ref_in({"text": text}) == ref
    assert ref_in({"text": None, "bytes": text.encode()}) == ref


@pytest.fixture
def parsed(monkeypatch):
    """What was parsed."""
    texts = []
    decode_data = messages.decode_data
    monkeypatch.setattr(
        messages, "decode_data", lambda text: texts.append(text) or decode_data(text)
    )
    return texts


@override_settings(REALTIME={"MAX_EVENT_BYTES": 100})
@pytest.mark.parametrize("kind", ["text", "bytes"])
def test_a_message_longer_than_any_publication_is_not_parsed(parsed, kind):
    limit = max_body_bytes() + AROUND_DATA
    start = '{"type":"publish","data":1'
    for length in (limit, limit + 1):
        text = f"{start}{' ' * (length - len(start) - 1)}}}"
        message = {kind: text if kind == "text" else text.encode()}
        if length == limit:
            assert request_of(message, "json") == {"type": "publish", "data": 1}
            parsed.clear()
        else:
            with pytest.raises(DataTooLarge, match=f"over {limit} characters"):
                request_of(message, "json")
            assert parsed == []


def test_the_longest_publication_fits():
    """With each character of its data, type and key escaped."""
    said = {
        "type": "publish",
        "topic": "a" * 99,
        "event": "\U0001f40e" * 64,
        "key": "\U0001f40e" * 200,
        "ref": "\x7f" * (REF_LENGTH - 2),
        "data": "a" * 65_534,
    }
    text = json.dumps(said).replace("a", "\\u0061").replace("\x7f", "\\u007f")
    text = text.replace('"d\\u0061t\\u0061"', '"data"')
    assert request_of({"text": text}, "json") == said


@pytest.mark.parametrize(
    "said", [{"type": "ping"}, {"type": "subscribe"}, {"type": 1}, {}, [], "publish"]
)
def test_only_a_publication_may_be_long(said):
    for length, is_refused in ((PUBLISH_BYTES, False), (PUBLISH_BYTES + 1, True)):
        message = {"text": json.dumps(said).ljust(length)}
        if is_refused:
            with pytest.raises(DataTooLarge, match="Only a 'publish'"):
                request_of(message, "json")
        else:
            assert request_of(message, "json") == said


@pytest.mark.parametrize("of_length", [lambda n: "r" * (n - 2), lambda n: [int("1" * (n - 2))]])
def test_a_ref_is_short(of_length):
    said: dict[str, Any] = {"type": "publish", "data": "x" * PUBLISH_BYTES}
    for kind in (said, {"type": "ping"}):
        longest = kind | {"ref": of_length(REF_LENGTH)}
        assert request_of({"text": json.dumps(longest)}, "json") == longest
        with pytest.raises(DataTooLarge, match="'ref'"):
            request_of({"text": json.dumps(kind | {"ref": of_length(REF_LENGTH + 1)})}, "json")


def test_a_ref_that_is_nested_too_deeply_to_be_written_is_not_short(monkeypatch):
    text = f'{{"type":"ping","ref":{"[" * 600}{"]" * 600}}}'
    with monkeypatch.context() as patched:
        patched.setattr(messages, "dumps", Mock(side_effect=RecursionError))
        with pytest.raises(DataTooLarge):
            request_of({"text": text}, "json")


def test_a_long_first_message_is_not_parsed(parsed):
    """Nobody knows yet who sends it."""
    text = '{"token":"rt_x"}'
    assert token_of({"text": text.ljust(PUBLISH_BYTES)}) == "rt_x"
    parsed.clear()
    with pytest.raises(NotIdentified):
        token_of({"text": text.ljust(PUBLISH_BYTES + 1)})
    assert parsed == []


@pytest.mark.parametrize(
    ("event_id", "ref", "said"),
    [
        ("abc-1", None, {"id": "abc-1"}),
        ("abc-1", "r", {"id": "abc-1", "ref": "r"}),
        (None, None, {"id": None}),  # an ephemeral one
    ],
)
def test_a_publication_is_acknowledged(event_id, ref, said):
    text = published_text(event_id, ref)
    assert json.loads(text) == {"type": "published", **said}
    assert text == reply("published", ref, id=event_id)
