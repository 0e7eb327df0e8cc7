"""Counters, gauges and histograms."""

from collections.abc import Iterator

import pytest

from realtime.metrics.cells import Kind
from realtime.metrics.series import Counter, Gauge, Histogram, refresh_gauges, registry

from .support import own_series


@pytest.fixture(autouse=True)
def _own_series() -> Iterator[None]:
    with own_series():
        yield


def test_a_counter_counts_by_its_labels():
    counter = Counter("a_total", "A.", path=("lane", "log"), code=("1000", "other"))
    counter.inc("lane", "1000")
    counter.add(4, "log", "1000")
    counter.inc("log", "4999")
    assert (counter.value("lane", "1000"), counter.value("log", "1000")) == (1, 4)
    assert counter.value("log", "other") == 1
    names = [name for name, _ in counter.samples({})]
    assert names[:2] == ['a_total{path="lane",code="1000"}', 'a_total{path="lane",code="other"}']


def test_a_label_without_other_takes_what_it_was_made_for_alone():
    counter = Counter("a_total", "A.", path=("lane", "log"))
    with pytest.raises(KeyError):
        counter.inc("user.1")


def test_there_is_one_series_of_a_name():
    Counter("a_total", "A.")
    with pytest.raises(ValueError, match="a_total"):
        Gauge("a_total", "A.")
    assert list(registry) == ["a_total"]


def test_a_gauge_goes_up_and_down():
    gauge = Gauge("a", "A.")
    gauge.inc()
    gauge.inc()
    gauge.dec()
    assert gauge.value() == 1
    gauge.set(7)
    assert gauge.value() == 7


def test_gauges_are_read_and_one_that_fails_keeps_no_other_from_it(caplog):
    def fail() -> int:
        raise RuntimeError("no")

    one, _ = Gauge("a", "A.", read=lambda: 3, kind=Kind.MIN), Gauge("b", "B.", read=fail)
    many = Gauge("c", "C.", read=lambda: {"x": 1, "y": 2}, what=("x", "y"))
    with caplog.at_level("CRITICAL", "realtime.metrics"):
        refresh_gauges()
    assert (one.value(), many.value("x"), many.value("y")) == (3, 1, 2)


def test_a_histogram_has_cumulative_buckets():
    histogram = Histogram("a_seconds", "A.", (0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 2.0, -1.0):
        histogram.observe(seconds)
    from realtime.metrics import series

    totals = {record.name: record.value for record in series.cells.records()}
    assert dict(histogram.samples(totals)) == {
        'a_seconds_bucket{le="0.1"}': 3,
        'a_seconds_bucket{le="1"}': 4,
        'a_seconds_bucket{le="+Inf"}': 5,
        "a_seconds_sum": pytest.approx(2.65),
        "a_seconds_count": 5,
    }
    assert histogram.count() == 5
