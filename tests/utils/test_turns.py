"""`realtime.utils.turns`: each has its turn, and no call takes long."""

from collections import Counter

import pytest

from realtime.utils.turns import SLOTS, Turns

NAMES = [f"t{number}" for number in range(1_000)]


def turns_of(names: list[str]) -> Turns:
    turns = Turns()
    for name in names:
        turns.add(name)
    return turns


@pytest.mark.parametrize("count", [2, 15, 150, SLOTS, 2 * SLOTS])
def test_each_has_its_turn_once_whatever_comes_and_goes(count):
    turns = turns_of(NAMES)
    passing = [f"p{number}" for number in range(100)]
    parts = []
    for _ in range(2 * count):
        for name in passing:
            turns.add(name)
        parts.append(turns.next(count))
        for name in passing[::7]:
            turns.discard(name)
        del passing[::7]
    counts = Counter(name for part in parts for name in part)
    assert {counts[name] for name in NAMES} == {2}
    assert max(map(len, parts)) < 1_100 / min(count, SLOTS) * 2 + 10


def test_those_that_have_gone_have_no_turn():
    turns = turns_of(NAMES)
    turns.add("t0")  # once more
    for name in NAMES[1:]:
        turns.discard(name)
    turns.discard("never there")
    assert [turns.next(3) for _ in range(3)].count(["t0"]) == 1
    turns.discard("t0")
    assert turns.next(1) == []


@pytest.mark.parametrize("turns", [0.0, 0.5, 1.0, 1.9])
def test_where_there_is_one_turn_all_have_it(turns):
    assert sorted(turns_of(NAMES).next(turns)) == sorted(NAMES)
