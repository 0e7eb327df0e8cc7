"""`realtime.eventlog.redis.request`: what the script gets, and what its answer means."""

import json

import pytest

from realtime.eventlog.base import NewEvent
from realtime.eventlog.known_heads import known_heads
from realtime.eventlog.redis.keyspace import Keyspace
from realtime.eventlog.redis.request import Append
from realtime.events.position import Position
from realtime.exceptions import KeyReused

CALLS = [
    [NewEvent("request.a", "message", "1"), NewEvent("request.b", "joined", "{}", '{"sender":1}')],
    [
        NewEvent("request.a", "message", "2", key="k"),
        NewEvent("request.a", "message", "2", key="k"),
    ],
    [NewEvent("request.b", "message", "3", key="k")],
]


@pytest.fixture
def append() -> Append:
    return Append(Keyspace(8), "writer", 7, CALLS)


def test_each_topic_and_each_key_is_sent_once(append):
    given, *values = append.values
    assert len(append.keys) == len(set(append.keys)) == 1 + 4 * 2 + 2
    calls = json.loads(given)["calls"]
    assert calls == [[[1, 0], [2, 0]], [[1, 10], [1, 10]], [[2, 11]]]
    assert len(values) == 4 * 5
    assert values[:8] == ["message", "1", "", "", "joined", "{}", '{"sender":1}', ""]


def test_what_was_known_before_is_sent_along():
    known_heads.note([("known.topic", Position("epoch", 5))])
    append = Append(Keyspace(8), "writer", 7, [[NewEvent("known.topic", "message", "1")]])
    assert json.loads(append.values[0])["known"] == [["epoch", 5]]


def test_the_answer_is_each_calls(append):
    said = {
        "epochs": ["x", "y"],
        "results": [[4, 1], 2, [-3]],
        "renewed": [[1, 0, 3], [2, 1, 9]],
    }
    first, second, third = append.answers(json.dumps(said).encode())
    assert [(e.topic, e.data, e.id) for e in first] == [
        ("request.a", "1", "x-4"),
        ("request.b", "{}", "y-1"),
    ]
    assert isinstance(second, KeyReused)
    assert [(e.id, e.is_repeated) for e in third] == [("y-3", True)]
    assert append.renewed == [("request.a", None, 3), ("request.b", None, 9)]


def test_an_answer_to_nothing():
    append = Append(Keyspace(8), "writer", 7, [[]])
    assert append.answers(b'{"epochs":{},"results":[{}],"renewed":{}}') == [[]]
