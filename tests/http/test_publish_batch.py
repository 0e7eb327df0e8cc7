"""`realtime.http.publish_batch`: what a body may hold; test_views sends it over real sockets."""

import json

import pytest
from django.test import override_settings

from realtime.exceptions import DataTooLarge, InvalidData, InvalidTopic, RateLimited
from realtime.http.publish_batch import parse_batch, publish_batch

from ..limits.support import by_session

EVENTS = [
    {"topic": "a", "data": {"text": "ž\n"}, "type": "said", "key": "k"},
    {"topic": "b", "data": None},
]
PARSED = [EVENTS[0], {**EVENTS[1], "type": "message", "key": None}]


def lines(*events: object, end: str = "\n") -> bytes:
    return "".join(json.dumps(event, ensure_ascii=False) + end for event in events).encode()


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(EVENTS).encode(),
        b"\n " + json.dumps(EVENTS, indent=2).encode(),
        lines(*EVENTS),
        lines(*EVENTS).strip(),
        lines(*EVENTS, end="\r\n\r\n"),
    ],
)
def test_an_array_and_lines_are_the_same(body):
    assert parse_batch(body) == PARSED


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (b"", InvalidData, "Send a JSON array"),
        (b" \n", InvalidData, "Send a JSON array"),
        (b"[]", InvalidData, "Send a JSON array"),
        (b"[", InvalidData, "^This is not JSON"),
        (lines(EVENTS[0]) + b"{", InvalidData, "Event 2: This is not JSON"),
        (lines(EVENTS[0]) + b"\xff", InvalidData, "Event 2: The JSON is not UTF-8"),
        (lines(1), InvalidData, "Event 1: An event is an object"),
        (lines({"topic": "a"}), InvalidData, "Event 1: An event is an object"),
        (lines({"topik": "a", "data": 1}), InvalidData, "Event 1: An event is an object"),
        (lines({"topic": ["a"], "data": 1}), InvalidTopic, "Event 1: A topic is a string"),
        (lines({"topic": "a b", "data": 1}), InvalidTopic, "Event 1: 'a b' can't be"),
        (
            lines({**EVENTS[0], "ephemeral": True}),
            InvalidData,
            "Event 1: An event has no 'ephemeral'",
        ),
        (lines(EVENTS[0], {**EVENTS[1], "event": "ring"}), InvalidData, "Event 2: .* no 'event'"),
        (
            lines({**EVENTS[0], "meta": {}, "publisher": "x"}),
            InvalidData,
            "no 'meta': it has topic,",
        ),
    ],
)
def test_what_is_wrong_is_said(body, error, said):
    with pytest.raises(error, match=said):
        parse_batch(body)


@override_settings(REALTIME={"MAX_BATCH_EVENTS": 2, "MAX_BATCH_BYTES": 200})
def test_the_limits():
    assert len(parse_batch(lines(*EVENTS))) == 2
    for body in (lines(*EVENTS, EVENTS[0]), json.dumps([*EVENTS, EVENTS[0]]).encode()):
        with pytest.raises(DataTooLarge, match="MAX_BATCH_EVENTS"):
            parse_batch(body)
    with pytest.raises(DataTooLarge, match="MAX_BATCH_BYTES"):
        parse_batch(b" " * 201)


async def test_what_is_no_batch_counts_as_one_event():
    with override_settings(REALTIME={"RATE_PUBLISHES_PER_USER": "2/d"}):
        client = by_session()
        for _ in range(2):
            with pytest.raises(InvalidData):
                await publish_batch(client, b"[1]", None)
        with pytest.raises(RateLimited):
            await publish_batch(client, b"[1]", None)
