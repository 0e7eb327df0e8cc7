"""`realtime.utils.turns`: each has its turn, and no call takes long."""

from collections import Counter

import pytest

from realtime.utils.turns import Turns

NAMES = [f"t{number}" for number in range(1_000)]


def test_each_has_its_turn_once_whatever_comes_and_goes():
    turns, passing = Turns(), [f"p{number}" for number in range(100)]
    parts = []
    for _ in range(30):
        parts.append(turns.next([*passing, *NAMES], 15))
        del passing[::7]
    assert {Counter(part for each in parts for part in each)[name] for name in NAMES} == {2}
    assert max(map(len, parts)) < 1_000 / 15 * 3


@pytest.mark.parametrize("turns", [0.0, 0.5, 1.0, 1.9])
def test_where_there_is_one_turn_all_have_it(turns):
    assert Turns().next(NAMES, turns) == NAMES
