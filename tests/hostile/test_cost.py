"""No request of a stranger holds a worker's processor for long, and none is a server's error."""

from .cost import MOST, run


def test_no_request_costs_much_and_none_is_an_error() -> None:
    requests, _ = run(repeat=2, has_messages=False)
    assert len(requests) > 100
    # A busy machine makes everything dearer; what is quadratic costs a hundred times as much.
    assert [cost for cost in requests if cost.milliseconds > 3 * MOST] == []
    errors = {cost.name for cost in requests if cost.answer.startswith("500")}
    assert {name for name in errors if not name.endswith("in a handshake")} == set()
    assert {cost.answer[:3] for cost in requests} >= {"200", "101", "400", "401", "403"}
