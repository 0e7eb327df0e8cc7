"""`realtime.events.topic`: a topic is a group of the channel layer."""

import pytest
from channels.layers import BaseChannelLayer

from realtime.events.topic import user_topic, validate_topic
from realtime.exceptions import InvalidTopic

GOOD = ["a", "A", "0", "-", "_", ".", "room.lobby", "user.42", "a" * 99]
BAD = ["", " ", "a b", "a/b", "a:b", "a\n", "ž", "a\0", "\u0661", "a" * 100, "a" * 100_000, "a,b"]


@pytest.mark.parametrize("name", GOOD)
def test_good_names(name):
    assert validate_topic(name) == name


@pytest.mark.parametrize("name", BAD, ids=lambda name: repr(name)[:20])
def test_bad_names(name):
    with pytest.raises(InvalidTopic, match="use 1 to 99 ASCII letters") as caught:
        validate_topic(name)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("name", [None, 1, b"a", ["a"], {"a": 1}, True])
def test_a_topic_is_a_string(name):
    with pytest.raises(InvalidTopic, match=f"a string, got {type(name).__name__}"):
        validate_topic(name)


@pytest.mark.parametrize("name", GOOD)
def test_every_channel_layer_takes_a_good_name(name):
    assert BaseChannelLayer().require_valid_group_name(name) is True


def test_user_topic():
    assert user_topic(42) == "user.42"
    assert user_topic("1f-0a") == "user.1f-0a"
    with pytest.raises(InvalidTopic):
        user_topic("a b")
    with pytest.raises(InvalidTopic, match="has a dot"):  # alice would read it
        user_topic("alice.bob")
