"""`realtime.presence.roster`: what is told of who is on one topic."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings

from realtime.presence.roster import Attendance, Person, Roster
from realtime.presence.rows import Row

GRACE = 15.0


@pytest.fixture(autouse=True)
def _constants() -> Iterator[None]:
    constants = {
        "PRESENCE_GRACE_SECONDS": GRACE,
        "PRESENCE_MEMBERS": 3,
        "PRESENCE_COUNT_SECONDS": 5.0,
    }
    with override_settings(REALTIME=constants):
        yield


def row(key: str, connections: int = 1, process: str = "p", age: float = 0.0) -> Row:
    return Row("a", key, connections, json.dumps({"id": key}) if key else "", process, age)


@pytest.fixture
def roster() -> Roster:
    roster = Roster("a")
    roster.replace([], 0.0, own="me")
    roster.refresh(0.0, {})
    return roster


def told(roster: Roster, known: Attendance | None, now: float, **gone: float) -> Any:
    roster.refresh(now, gone)
    text = roster.changes(known)
    return None if text is None else json.loads(text)


def test_nothing_is_told_before_it_is_loaded():
    roster = Roster("a")
    roster.put(row("1", process="me"), 0.0)
    assert told(roster, None, 0.0) is None
    roster.replace([], 0.0, own="me")
    assert told(roster, None, 0.0)["users"] == [{"id": "1", "connections": 1}]


def test_a_user_is_seen_as_the_newest_row_says(roster):
    roster.put(row("1"), 1.0)
    roster.put(row("1")._replace(info='{"id":"one"}'), 1.0)
    assert told(roster, None, 1.0)["users"][0]["id"] == "one"
    roster.replace([row("1")._replace(info='{"id":"two"}')], 2.0, own="me")
    assert told(roster, None, 2.0)["users"][0]["id"] == "two"


def test_changes_are_told_once(roster):
    before = roster.current
    roster.put(row("1"), 1.0)
    assert told(roster, before, 1.0)["joined"] == [{"id": "1", "connections": 1}]
    assert told(roster, roster.current, 1.0) is None
    assert told(roster, before, 2.0)["joined"], "for one who reads slowly"
    before = roster.current
    roster.put(row("1", 2), 2.0)
    assert told(roster, before, 2.0) is None, "another tab"
    roster.put(row("1", 0, age=5.0), 3.0)
    assert told(roster, before, 3.0 + GRACE - 5.1) is None
    assert told(roster, before, 3.0 + GRACE - 4.9) == {
        "topic": "a",
        "joined": [],
        "left": [{"id": "1", "connections": 0}],
        "connections": 0,
    }


def test_a_row_that_is_read_again_gives_no_more_time(roster):
    roster.put(row("1"), 0.0)
    roster.refresh(0.0, {})
    before = roster.current
    for second in range(20):
        roster.put(row("1", 0), float(second))
    assert told(roster, before, 20.0)["left"]


def test_what_is_missing_when_all_is_read_has_left_just_now(roster):
    roster.put(row("1"), 0.0)
    roster.put(row("2", process="me"), 0.0)
    roster.refresh(0.0, {})
    before = roster.current
    roster.replace([], 5.0, own="me")
    assert told(roster, before, 5.0 + GRACE - 1) is None
    assert [each["id"] for each in told(roster, before, 6.0 + GRACE)["left"]] == ["1"]


def test_those_of_a_process_that_has_gone_unless_they_are_elsewhere(roster):
    for each in (row("1"), row("2"), row("2", process="q")):
        roster.put(each, 0.0)
    roster.refresh(0.0, {})
    before = roster.current
    roster.note_processes()
    assert told(roster, before, 10.0, p=10.0) is None
    assert [each["id"] for each in told(roster, before, 10.0 + GRACE, p=10.0)["left"]] == ["1"]


def test_of_many_the_number_is_told_and_not_often(roster):
    empty = roster.current
    for key in "1234":
        roster.put(row(key, 2), 10.0)
    assert told(roster, empty, 10.0) == {"topic": "a", "connections": 8}
    many = roster.current
    roster.put(row("5"), 11.0)
    assert told(roster, many, 11.0) is None
    assert told(roster, many, 15.0) == {"topic": "a", "connections": 9}
    for key in "345":
        roster.put(row(key, 0), 16.0)
    few = told(roster, many, 16.0 + GRACE)
    assert few["connections"] == 4
    assert [each["id"] for each in few["users"]] == ["1", "2"], "all of them again"


def test_a_person_s_object():
    assert json.loads(Person("{}", 2).text) == {"connections": 2}
    assert json.loads(Person('{"id":"é"}', 0).text) == {"id": "é", "connections": 0}
