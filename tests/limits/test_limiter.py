"""`realtime.limits.limiter`: the buckets of an event loop."""

from time import monotonic_ns

from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from realtime.conf.rate import NANOSECONDS, parse_rate
from realtime.limits import limiter as module
from realtime.limits.limiter import FEW_BUCKETS, HEARD_SECONDS, PEER_SECONDS, Limiter

SLOW = parse_rate("5/d")


def spend(limiter: Limiter, name: str, cost: int) -> None:
    limiter.make_bucket(("RATE", name), SLOW).spend(monotonic_ns(), cost)


def test_a_bucket_is_made_once():
    limiter = Limiter()
    spend(limiter, "a", 3)
    assert limiter.make_bucket(("RATE", "a"), SLOW).spent == 3
    assert limiter.make_bucket(("RATE", "b"), SLOW).spent == 0


def test_what_is_full_again_is_forgotten():
    limiter = Limiter()
    for number in range(10 * FEW_BUCKETS):
        limiter.make_bucket(("RATE", str(number)), SLOW)
    assert len(limiter.buckets) <= FEW_BUCKETS


def test_what_is_not_full_stays():
    limiter = Limiter()
    spend(limiter, "a", 1)
    for number in range(10 * FEW_BUCKETS):
        limiter.make_bucket(("RATE", str(number)), SLOW)
    assert limiter.buckets["RATE", "a"].spent == 1


def test_there_are_no_more_than_so_many(monkeypatch):
    monkeypatch.setattr(module, "MAX_BUCKETS", 10)
    monkeypatch.setattr(module, "FEW_BUCKETS", 0)
    limiter = Limiter()
    for number in range(100):
        spend(limiter, str(number), 1)
    assert len(limiter.buckets) <= 11


def test_without_a_rate_there_is_no_limit():
    bucket = Limiter().make_bucket(("RATE", "a"), None)
    bucket.spend(monotonic_ns(), 10**9)
    assert bucket.wait(monotonic_ns(), 10**9) == 0


def test_no_limit_is_none_in_any_number_of_processes():
    limiter = Limiter()
    before = limiter.make_bucket(("RATE", "a"), None)
    limiter.divide(3)
    for bucket in (before, limiter.make_bucket(("RATE", "b"), None)):
        bucket.spend(monotonic_ns(), 10**9)
        assert bucket.wait(monotonic_ns(), 10**9) == 0


def left(limiter: Limiter) -> int:
    """How many more are let through."""
    bucket, count = limiter.make_bucket(("RATE", "a"), SLOW), 0
    while bucket.take(monotonic_ns()) == 0:
        count += 1
    return count


@given(st.lists(st.integers(1, 30), max_size=20))
def test_totals_may_be_lost_come_twice_and_late(numbers):
    """What counts is the newest of them, however many have come."""
    limiter = Limiter()
    limiter.make_bucket(("RATE", "a"), parse_rate("100/d"))
    for number in numbers:  # totals grow with the messages
        limiter.hear("other", number, {("RATE", "a"): 3 * number}, {})
    newest = max(numbers, default=0) * 3
    assert left(limiter) == 100 - newest


def test_a_process_that_begins_anew_counts_from_nothing():
    limiter = Limiter()
    limiter.make_bucket(("RATE", "a"), parse_rate("100/d"))
    limiter.hear("other", 1, {("RATE", "a"): 20}, {})
    limiter.hear("other", 2, {("RATE", "a"): 5}, {})
    assert left(limiter) == 75


def test_of_what_is_heard_for_the_first_time_no_more_than_the_burst_counts():
    limiter = Limiter()
    bucket = limiter.make_bucket(("RATE", "a"), parse_rate("100/d burst 10"))
    limiter.hear("other", 1, {("RATE", "a"): 1_000_000}, {})
    assert bucket.wait(monotonic_ns()) <= 86_400 * NANOSECONDS // 100


@override_settings(REALTIME={"MAX_CONNECTIONS_PER_USER": 8})
def test_connections_of_others_count_for_some_seconds(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    limiter, key = Limiter(), ("MAX_CONNECTIONS_PER_USER", "1")
    limiter.connect(key)
    limiter.hear("other", 1, {}, {key: 3})
    limiter.hear("third", 1, {}, {key: 2})
    assert limiter.connections(key) == 6
    now[0] += HEARD_SECONDS
    limiter.hear("third", 2, {}, {key: 4})
    assert limiter.connections(key) == 5
    now[0] += PEER_SECONDS
    limiter.hear("fourth", 1, {}, {})
    assert list(limiter._peers) == ["fourth"]


def test_what_is_told_in_parts_counts_when_all_have_come():
    limiter, told = Limiter(), [{("MAX", name): 3} for name in "abc"]

    def open_now() -> str:
        return "".join(name for name in "abc" if limiter.connections(("MAX", name)))

    for part, some in enumerate(told):
        assert open_now() == ""
        limiter.hear("other", 1 + part, {}, some, part, 3)
    assert open_now() == "abc"
    limiter.hear("other", 4, {}, told[0], 0, 2)
    assert open_now() == "abc", "also while the next come"
    limiter.hear("other", 6, {}, told[1], 0, 2)  # the last one was lost
    limiter.hear("other", 7, {}, told[2], 1, 2)
    assert open_now() == "bc"
    limiter.hear("other", 8, {}, told[0])  # from an earlier release, which has no parts
    assert open_now() == "a"
    limiter.hear("other", 10, {}, told[1], 1, 3)  # of three, the first one was lost
    limiter.hear("other", 11, {}, {}, 2, 3)
    assert open_now() == "b"


@override_settings(REALTIME={"MAX_CONNECTIONS_PER_USER": 8})
def test_the_others_are_told_when_more_than_half_of_the_part_is_open():
    hot = []
    limiter, key = Limiter(), ("MAX_CONNECTIONS_PER_USER", "1")
    limiter.on_hot = lambda: hot.append(len(hot))
    limiter.divide(2)
    for _ in range(2):
        limiter.connect(key)
    assert (hot, list(limiter.crowded())) == ([], [])
    limiter.connect(key)
    assert (hot, list(limiter.crowded())) == ([0], [(key, 3)])
    limiter.disconnect(key)
    assert list(limiter.crowded()) == []
