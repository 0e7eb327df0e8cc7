"""A short run of the command that misbehaves for minutes, and that it can fail."""

from dataclasses import replace

import pytest

from .churn import CLIENTS, Held, run


def test_nothing_is_left_of_clients_that_misbehave() -> None:
    done, before, after = run(3, warm_up=3)
    assert set(done) == {client.__name__ for client in CLIENTS}
    assert after.grown(before) == []
    assert before.memory > 2**20
    assert min(before.descriptors, before.threads) > 4


@pytest.mark.parametrize("name", vars(Held(0, 0, 0, 0, 0, 0)))
def test_what_grows_is_named(name: str) -> None:
    before = Held(10, 10, 10, 10, 10, 10)
    (found,) = replace(before, **{name: 10**9}).grown(before)
    assert found == f"{name}: 10 before, 1,000,000,000 now"
