"""The main job in full, as the README has it."""

import pytest

from .main_job import Report, run


@pytest.mark.timeout(180)
def test_every_subscriber_has_every_event_once_and_in_order() -> None:
    report = run()
    assert report.is_clean, str(report)
    assert report.published == 1_000
    assert report.reconnects >= 100, "killing a worker should have cut about half the connections"


@pytest.mark.parametrize(
    "wrong",
    [{"lost": 1}, {"duplicated": 1}, {"out_of_order": 1}, {"missing_from_log": 1}, {"resets": 1}],
)
def test_the_report_can_fail(wrong: dict[str, int]) -> None:
    assert Report(expected=5, received=5).is_clean
    assert not Report(expected=5, received=5, **wrong).is_clean
    assert not Report(expected=5, received=4).is_clean
    assert not Report().is_clean
