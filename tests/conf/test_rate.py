"""`realtime.conf.rate`: how settings write a rate."""

import pytest
from django.test import override_settings

from realtime.conf import settings
from realtime.conf.rate import Rate, RateSetting, parse_rate

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "interval", "burst"),
    [
        ("20/s burst 60", SECOND // 20, 60),
        ("20/s", SECOND // 20, 20),
        ("5/m", 12 * SECOND, 5),
        ("5/m burst 1", 12 * SECOND, 1),
        ("2/h", 1_800 * SECOND, 2),
        ("1/d burst 9", 86_400 * SECOND, 9),
        ("3/s", 333_333_334, 3),  # rounded so that none more comes through
    ],
)
def test_what_is_written_is_meant(text, interval, burst):
    assert parse_rate(text) == Rate(text, interval, burst)


def test_unlimited_is_none():
    assert parse_rate("unlimited") is None


@pytest.mark.parametrize(
    "value",
    ["", "20", "0/s", "20/s burst 0", "20/w", "20/s  burst 60", "-1/s", "1.5/s", 20, ["1/s"]],
)
def test_what_is_no_rate_is_reported_with_examples(value):
    message, hint = RateSetting("1/s", "").find_problem(value)
    assert repr(value) in message
    assert "'20/s burst 60'" in hint


@pytest.mark.parametrize("value", [None, "unlimited"])
def test_a_setting_may_have_no_limit(value):
    with override_settings(REALTIME={"RATE_MESSAGES": value}):
        assert settings.RATE_MESSAGES is None
    assert RateSetting("1/s", "").find_problem(value) is None


def test_the_code_gets_it_parsed():
    with override_settings(REALTIME={"RATE_MESSAGES": "5/m"}):
        assert parse_rate("5/m") == settings.RATE_MESSAGES
