"""Numbers on a command line: which are taken, and what is said of the others."""

import argparse
from collections.abc import Callable
from typing import Any

import pytest

from realtime.server.option_types import PORT, SECONDS, number


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (PORT, "0", 0),
        (PORT, "65535", 65_535),
        (SECONDS, "0", 0.0),
        (SECONDS, "0.25", 0.25),
        (number(0.1), "0.1", 0.1),
        (number(1), "1", 1),
    ],
)
def test_what_can_be_meant(kind: Callable[[str], Any], text: str, value: float) -> None:
    assert kind(text) == value
    assert type(kind(text)) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        (PORT, "-1", "a whole number, 0 to 65535"),
        (PORT, "65536", "a whole number, 0 to 65535"),
        (SECONDS, "-0.5", "a number of at least 0"),
        (SECONDS, "nan", "a number of at least 0"),
        (SECONDS, "inf", "a number of at least 0"),
        (SECONDS, "abc", "a number of at least 0"),
        (number(0.1), "0", "a number of at least 0.1"),
        (number(1), "0", "a whole number of at least 1"),
        (number(1), "1.5", "a whole number of at least 1"),
    ],
)
def test_what_can_not(kind: Callable[[str], Any], text: str, wanted: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        kind(text)
    assert str(caught.value) == f"it takes {wanted}; {text!r} is none."
