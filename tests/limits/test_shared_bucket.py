"""`realtime.limits.shared_bucket`: one rate for several processes."""

from hypothesis import given
from hypothesis import strategies as st

from realtime.conf.rate import NANOSECONDS, parse_rate
from realtime.limits.shared_bucket import SharedBucket

RATE = parse_rate("10/s burst 20")


def taken(bucket: SharedBucket, now: int, most: int = 100) -> int:
    for number in range(most):
        if bucket.wait(now):
            return number
        bucket.spend(now)
    return most


def test_where_nobody_else_spends_all_of_it_may_be_spent_here():
    assert taken(SharedBucket(RATE, "", 4), 0) == 20


def test_what_others_have_spent_is_not_left_but_the_share_is():
    bucket = SharedBucket(RATE, "", 4)
    bucket.spend_elsewhere(0, 20)
    assert taken(bucket, 0) == 5
    assert taken(bucket, NANOSECONDS) == 5  # of 10 in a second, those 5 were owed
    bucket.spend_elsewhere(NANOSECONDS, 1_000)
    assert taken(bucket, 3 * NANOSECONDS) == 5  # of the share, 10/4 in a second


def test_it_says_when_by_the_sooner_of_both():
    bucket = SharedBucket(RATE, "", 2)
    bucket.spend_elsewhere(0, 1_000)
    assert taken(bucket, 0) == 10
    assert bucket.wait(0) == NANOSECONDS // 5
    assert bucket.wait(0, 11) > NANOSECONDS  # more than the share ever has


def test_it_is_hot_when_more_than_half_is_spent():
    bucket = SharedBucket(RATE, "")
    bucket.spend(0, 10)
    assert not bucket.is_hot(0)
    bucket.spend(0)
    assert bucket.is_hot(0)
    assert not bucket.is_hot(NANOSECONDS)
    assert bucket.spent == 11


def test_the_share_follows_the_number_of_processes():
    bucket = SharedBucket(RATE, "", 4)
    bucket.spend_elsewhere(0, 1_000)
    bucket.divide(40, 0)
    assert taken(bucket, 0) == 1  # never nothing
    bucket.divide(1, 0)
    assert taken(bucket, 0) == 0


def test_what_is_spent_before_others_come_is_spent_of_the_share():
    bucket = SharedBucket(RATE, "")
    assert taken(bucket, 0, 12) == 12
    bucket.divide(2, 0)
    bucket.spend_elsewhere(0, 12)
    assert taken(bucket, 0) == 0  # 12 of 10
    assert taken(bucket, NANOSECONDS) == 6  # of the whole, to which 10 came back
    bucket.divide(4, NANOSECONDS)
    assert taken(bucket, NANOSECONDS) == 0


@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, NANOSECONDS)), max_size=200),
)
def test_where_all_is_told_at_once_all_together_keep_the_rate(processes, asked):
    """Besides the shares, which are there for sure: of each process no more than its part."""
    buckets = [SharedBucket(RATE, "", processes) for _ in range(processes)]
    now = total = 0
    for index, pause in asked:
        now += pause
        bucket = buckets[index % processes]
        if bucket.wait(now) == 0:
            bucket.spend(now)
            total += 1
            for other in buckets:
                if other is not bucket:
                    other.spend_elsewhere(now, 1)
    assert total <= 2 * (now / RATE.interval + RATE.burst) + processes
