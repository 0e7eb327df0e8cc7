"""`realtime.websocket.refusals`: when a socket is closed for what was refused."""

import pytest
from django.test import override_settings

from realtime.exceptions import DatabaseUnavailable, InvalidData, RateLimited, TooManyRequests
from realtime.websocket import refusals
from realtime.websocket.refusals import Refusals

FAST = RateLimited("Slower.", 1.5)


@pytest.fixture
def clock(monkeypatch):
    """The time, which stands still."""
    now = [100.0]
    monkeypatch.setattr(refusals, "monotonic", lambda: now[0])
    with override_settings(REALTIME={"HAMMERING_REFUSALS": 3, "HAMMERING_SECONDS": 5.0}):
        yield now


def test_so_many_that_come_earlier_than_told_close_the_socket(clock):
    counted = Refusals()
    assert counted.add(FAST) is None
    for pause in (1.4, 1.4):
        clock[0] += pause
        assert counted.add(FAST) is None
    clock[0] += 1.4
    assert counted.add(FAST) == (4429, "Too many were refused; retry after 30")


def test_spread_over_a_longer_time_they_do_not(clock):
    counted = Refusals()
    for _ in range(100):
        assert counted.add(FAST) is None
        assert counted.add(FAST) is None
        clock[0] += 5.1


def test_who_has_waited_as_told_may_be_refused_again_and_again(clock):
    counted = Refusals()
    for _ in range(100):
        assert counted.add(FAST) is None
        clock[0] += 1.5


def test_ten_times_a_rate_does_at_once(clock):
    assert Refusals().add(RateLimited("Slower.", 1.5, is_hammering=True))[0] == 4429


@pytest.mark.parametrize(
    ("error", "code"), [(InvalidData("bad"), 4400), (TooManyRequests("a limit", 1), 4429)]
)
def test_bad_messages_close_it_too_and_are_counted_apart(error, code):
    with override_settings(REALTIME={"MAX_BAD_MESSAGES": 2}):
        counted = Refusals()
        assert counted.add(DatabaseUnavailable()) is None
        assert counted.add(FAST) is None
        assert counted.add(error) is None
        assert counted.add(error) == (code, "2 messages were refused.")
