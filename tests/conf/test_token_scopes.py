"""The scopes of access tokens: what they allow, and what is none."""

import time

import pytest

from realtime.conf.token_scopes import (
    MAX_SCOPES_LENGTH,
    SCOPE_ACTIONS,
    find_problem_of_scopes,
    scopes_allow,
)


def test_scope_is_about_its_action_and_the_topics_of_its_pattern():
    scopes = "publish:room.* read:orders.* read:news presence:room.a"
    allowed = {
        (action, topic)
        for action in SCOPE_ACTIONS
        for topic in ["room.a", "room.a.b", "rooms", "orders.1", "orders", "news", "news.1"]
        if scopes_allow(scopes, topic, action)
    }
    assert allowed == {
        *(("publish", "room.a"), ("publish", "room.a.b"), ("presence", "room.a")),
        *(("read", "orders.1"), ("read", "news")),
    }
    assert not scopes_allow(scopes, "room.a", "delete")


def test_topics_of_the_package_have_to_be_named():
    assert scopes_allow("read:*", "anything", "read")
    assert not scopes_allow("read:* read:*.revocation", "realtime.revocation", "read")
    assert scopes_allow("read:realtime.*", "realtime.revocation", "read")


@pytest.mark.parametrize("text", ["", "read:room.*", "  read:a\n publish:a-b_c.*\tpresence:*  "])
def test_what_is_right_has_no_problem(text):
    assert find_problem_of_scopes(text) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("room.*", "'room.*' is no scope. An action (read, publish, presence)"),
        ("write:room.*", "'write:room.*' is no scope."),
        ("READ:room.*", "is no scope"),
        ("read :room.*", "'read' is no scope."),
        (":room.*", "is no scope"),
        ("read:", "which no topic's name matches"),
        ("read:a\0", "which no topic's name matches"),
        ("read:room.[ab]", "which no topic's name matches"),
        ("read:room?", "which no topic's name matches"),
        ("read:ž", "which no topic's name matches"),
        ("read:a,publish:b", "which no topic's name matches"),
        ("read:" + "a" * 100, "longer than a name"),
        ("read:" + "a" * 10_000, f"{MAX_SCOPES_LENGTH} at most"),
        ("read:a " * 1_000, f"{MAX_SCOPES_LENGTH} at most"),
    ],
)
def test_what_is_wrong_is_said_with_the_remedy(text, says):
    problem = " ".join(find_problem_of_scopes(text) or ())
    assert says in problem
    assert len(problem) < 500
    # What was written to the table past the check gives nothing at all.
    assert not scopes_allow(f"read:b {text}", "b", "read")


def test_no_scopes_take_long_to_match():
    begun = time.process_time()
    for start in range(20):
        scopes = f"read:{start}{'*a' * 90}b"
        assert find_problem_of_scopes(scopes) is None
        assert not scopes_allow(scopes, "a" * 99, "read")
    assert time.process_time() - begun < 2
