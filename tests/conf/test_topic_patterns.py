"""The patterns of `TOPICS`: what they match, and what is wrong with some."""

import time
from typing import Any

import pytest
from django.test import override_settings

from realtime.conf import Settings, settings
from realtime.conf.topic_patterns import MAX_CHARACTERS, PEOPLE
from realtime.events.topic import MAX_TOPIC_LENGTH
from realtime.exceptions import RealtimeConfigurationError


def problem_of(value: Any) -> str:
    found = Settings.TOPICS.find_problem(value)
    return "" if found is None else " ".join(found)


@pytest.mark.parametrize(
    ("pattern", "topics", "others"),
    [
        ("room.*", ["room.a", "room.", "room.a.b"], ["room", "rooms.a", "Room.a", "a.room.b"]),
        ("room.a", ["room.a"], ["room.ab", "room.A", "roomxa"]),
        ("*.done", ["a.done", ".done"], ["a.done.b", "done"]),
        ("org.*.room.*", ["org.1.room.a", "org.1.2.room.room."], ["org.1.rooms.a"]),
        ("*", ["a", "A-z_0.9"], []),
        ("a_b", ["a_b"], ["axb"]),
    ],
)
def test_a_star_stands_for_any_characters(pattern, topics, others):
    with override_settings(REALTIME={"TOPICS": {pattern: {}}}):
        [found] = settings.TOPICS
    assert [topic for topic in topics if not found.matches(topic)] == []
    assert [topic for topic in others if found.matches(topic)] == []


def test_no_name_takes_long_to_match():
    with override_settings(REALTIME={"TOPICS": {"*a" * 40 + "b": {}}}):
        [found] = settings.TOPICS
    started = time.process_time()
    assert not found.matches("a" * MAX_TOPIC_LENGTH)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("value", "message", "remedy"),
    [
        (None, "is None", "A dict"),
        (["room.*"], "is ['room.*']", "A dict"),
        ({"": {}}, "the pattern '', which no topic's name matches", "'room.*'"),
        ({"room *": {}}, "'room *', which no topic's name matches", "'room.*'"),
        ({"room.[ab]": {}}, "which no topic's name matches", "'*' for any"),
        ({"room.a\n": {}}, "which no topic's name matches", "'*' for any"),
        ({1: {}}, "the pattern 1, which no topic's name matches", "'room.*'"),
        ({"a" * 100 + "*": {}}, "longer than a name", "99 at most"),
        ({"a": 100}, "has 100 for 'a'", "A dict, as {'RETENTION_EVENTS': 100}"),
        ({"a": {"STAT": True}}, "'STAT' for 'a', which is no setting", "mean 'STATE'?"),
        ({"a": {"MAX_TOPICS": 1}}, "'MAX_TOPICS' for 'a', which is no setting", "Known are"),
        ({"a": {"presence": True}}, "'presence' for 'a', which is no setting", "Known are"),
        ({"a": {1: True}}, "has 1 for 'a', which is no setting", "'RETENTION_SECONDS'"),
        ({"a": {"STATE": 1}}, "'STATE' for 'a', which is 1.", "True or False."),
        ({"a": {"READ": "everybody"}}, "'READ' for 'a', which is 'everybody'.", PEOPLE),
        ({"a": {"PUBLISH": None}}, "'PUBLISH' for 'a', which is None.", PEOPLE),
        ({"a": {"RETENTION_EVENTS": 0}}, "'RETENTION_EVENTS' for 'a', which is 0.", "More than"),
        ({"a": {"RETENTION_SECONDS": "1h"}}, "which is '1h'.", "A number"),
        ({"*": {}, "a": {}}, "has 'a' after '*', which matches all", "Put 'a' before '*'"),
        (
            {"room.*": {}, "b": {}, "room.a.*": {}},
            "has 'room.a.*' after 'room.*'",
            "Put 'room.a.*'",
        ),
        ({"*.*": {}, "a.*.b*": {}}, "has 'a.*.b*' after '*.*'", "leave it out"),
    ],
)
def test_what_is_wrong_is_said_with_the_remedy(value, message, remedy):
    found = problem_of(value)
    assert message in found
    assert remedy in found


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"room.*": {}},
        {"a": {"RETENTION_EVENTS": None, "RETENTION_SECONDS": None}},
        {"a": {"RETENTION_EVENTS": 1, "RETENTION_SECONDS": 0.5, "STATE": True}},
        {"a": {"READ": "anyone", "PUBLISH": "nobody"}, "b": {"READ": "staff", "PUBLISH": "rule"}},
        {"room.a": {}, "room.*": {}, "*": {}},
        {"room.*": {}, "room*": {}},
        {"a.*": {}, "*.a": {}},
        {"room.*.a": {}, "room.*": {}},
        {"*" + "a" * 99 + "*": {}},
    ],
)
def test_what_is_right(value):
    assert problem_of(value) == ""


def test_a_wrong_value_is_an_error_where_nobody_has_checked():
    with (
        override_settings(REALTIME={"TOPICS": {"a": {"STATE": "yes"}}}),
        pytest.raises(RealtimeConfigurationError, match=r"'STATE' for 'a'.* True or False"),
    ):
        _ = settings.TOPICS


def test_the_limits_are_those_of_names():
    assert MAX_CHARACTERS == MAX_TOPIC_LENGTH
