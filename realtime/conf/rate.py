"""Rates as settings write them: `20/s burst 60`, `5/m`."""

import re
from typing import Any, Final, NamedTuple

from .setting import Setting

UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}  # seconds
NANOSECONDS: Final = 1_000_000_000
UNLIMITED: Final = "unlimited"
EXAMPLES: Final = "as '20/s burst 60', '5/m' (also h and d), or 'unlimited'"
_RATE: Final = re.compile(r"([1-9][0-9]{0,8})/([smhd])(?: burst ([1-9][0-9]{0,8}))?")


class Rate(NamedTuple):
    """How many uses a time allows, and how many of them at once."""

    text: str
    interval: int  # nanoseconds for one of them
    burst: int


def parse_rate(text: str) -> Rate | None:
    """Return the rate, or None for `unlimited`; raise ValueError, with what can be meant.

    Without a burst, as many may come at once as in the unit of time.
    """
    if text == UNLIMITED:
        return None
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no rate: {EXAMPLES}.")
    count, unit, burst = match.groups()
    # Rounded up: in whole nanoseconds, no rounding ever lets one more through.
    interval = -(-UNITS[unit] * NANOSECONDS // int(count))
    return Rate(text, interval, int(burst or count))


class RateSetting(Setting[Any]):
    """A setting that is a rate, or None for no limit; the code gets a `Rate` or None."""

    def __init__(self, default: str | None, help: str) -> None:
        super().__init__(default, "rate", help, is_nullable=True)

    def resolve(self, value: Any) -> Rate | None:
        """Return the rate; raise ValueError for what `find_problem` reports."""
        return None if value is None else parse_rate(value)

    def find_problem(self, value: Any) -> tuple[str, str] | None:
        """Return what is wrong with a value that is not a rate, and the remedy."""
        if value is None:
            return None
        try:
            parse_rate(value)
        except (TypeError, ValueError):
            return f"is {value!r}, which is no rate.", f"A rate, {EXAMPLES}, or None for no limit."
        return None
