"""The main job with 160 subscribers; `python -m tests.main_job` has 400, as the README says."""

import pytest

from ..main_job import Report, restart, run
from ..support.brokers import BROKERS
from ..support.bus_servers import NATS_BINARY, NO_NATS
from ..support.databases import ON_POSTGRESQL


@pytest.mark.timeout(180)
def test_every_subscriber_has_every_event_once_and_in_order() -> None:
    report = run(sockets=80)
    assert report.is_clean, str(report)
    assert report.published == 1_000
    # Of two workers that with the more of them.
    assert report.reconnects >= 40, "killing a worker should have cut its connections"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("bus", sorted(BROKERS.keys() - {"channels"}))
def test_so_it_is_with_every_bus(bus: str) -> None:
    if bus == "postgres" and not ON_POSTGRESQL:
        pytest.skip("the log is not on PostgreSQL")
    if bus == "nats" and NATS_BINARY is None:
        pytest.skip(NO_NATS)
    report = run(bus=bus, sockets=25, events=400)
    assert report.is_clean, str(report)
    assert report.reconnects, "killing a worker should have cut its connections"


@pytest.mark.timeout(180)
def test_so_it_is_with_the_log_in_redis() -> None:
    report = run(log="redis", sockets=25)
    assert report.is_clean, str(report)
    assert report.reconnects >= 10


@pytest.mark.timeout(180)
def test_a_rolling_restart_costs_nobody_an_event() -> None:
    report = run(restart, sockets=25, events=2_000)
    assert report.is_clean, str(report)
    assert report.reconnects >= 50, "every client was on a worker that was replaced"


@pytest.mark.parametrize(
    "wrong",
    [{"lost": 1}, {"duplicated": 1}, {"out_of_order": 1}, {"missing_from_log": 1}, {"resets": 1}],
)
def test_the_report_can_fail(wrong: dict[str, int]) -> None:
    assert Report(expected=5, received=5).is_clean
    assert not Report(expected=5, received=5, **wrong).is_clean
    assert not Report(expected=5, received=4).is_clean
    assert not Report().is_clean
