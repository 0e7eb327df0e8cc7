"""`realtime.limits.token_bucket`, on a clock that stands until a test moves it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.conf.rate import NANOSECONDS, Rate, parse_rate
from realtime.limits.token_bucket import TokenBucket, seconds

rates = st.builds(
    lambda count, unit, burst: parse_rate(f"{count}/{unit} burst {burst}"),
    st.integers(1, 1_000),
    st.sampled_from("smh"),
    st.integers(1, 1_000),
)
nanoseconds = st.integers(0, 20 * NANOSECONDS)


def rate(text: str) -> Rate:
    found = parse_rate(text)
    assert found is not None
    return found


def test_as_many_as_the_burst_come_at_once():
    bucket = TokenBucket(rate("20/s burst 60"))
    assert [bucket.take(5) == 0 for _ in range(61)] == [True] * 60 + [False]


def test_one_comes_back_after_each_interval():
    bucket = TokenBucket(rate("20/s burst 1"))
    assert bucket.take(0) == 0
    assert bucket.take(0) == NANOSECONDS // 20
    assert bucket.take(NANOSECONDS // 20 - 1) == 1
    assert bucket.take(NANOSECONDS // 20) == 0


def test_what_is_refused_costs_nothing():
    bucket = TokenBucket(rate("1/s burst 1"))
    bucket.take(0)
    assert {bucket.take(1) for _ in range(100)} == {NANOSECONDS - 1}


def test_what_is_owed_comes_back_at_the_rate():
    bucket = TokenBucket(rate("1/s burst 2"))
    bucket.spend(0, 5)
    assert bucket.wait(0) == 4 * NANOSECONDS
    assert not bucket.is_full(5 * NANOSECONDS - 1)
    assert bucket.is_full(5 * NANOSECONDS)


@given(rates, st.lists(st.tuples(nanoseconds, st.integers(1, 50))))
def test_no_more_than_the_rate_and_the_burst_in_any_time(rate, asked):
    bucket, now, taken = TokenBucket(rate), 0, []
    for pause, cost in asked:
        now += pause
        if bucket.take(now, cost) == 0:
            taken.append((now, cost))
    for first, (begin, _) in enumerate(taken):
        total = 0
        for end, cost in taken[first:]:
            total += cost
            assert total <= (end - begin) / rate.interval + rate.burst


@given(rates, st.lists(st.tuples(nanoseconds, st.integers(1, 50)), max_size=50))
def test_who_waits_as_long_as_told_is_let_through(rate, asked):
    bucket, now = TokenBucket(rate), 0
    for pause, cost in asked:
        cost = min(cost, rate.burst)
        now += pause
        wait = bucket.take(now, cost)
        if wait:
            # As clients are told: in milliseconds.
            now += round(seconds(wait) * NANOSECONDS)
            assert bucket.take(now, cost) == 0


@given(rates, st.lists(st.tuples(nanoseconds, st.integers(1, 50))))
def test_wait_and_spend_are_take_in_two_steps(rate, asked):
    one, other, now = TokenBucket(rate), TokenBucket(rate), 0
    for pause, cost in asked:
        now += pause
        wait = one.wait(now, cost)
        assert wait == other.take(now, cost)
        if wait == 0:
            one.spend(now, cost)


@pytest.mark.parametrize(
    ("wait", "told"), [(1, 0.001), (1_000_000, 0.001), (1_000_001, 0.002), (NANOSECONDS, 1.0)]
)
def test_seconds_are_rounded_up(wait, told):
    assert seconds(wait) == told
