"""What a number on a command line may be: types for argparse, which says of which option."""

import argparse
import math
from collections.abc import Callable
from typing import Any, Final


def number(least: float, most: float = math.inf) -> Callable[[str], Any]:
    """Return the type of finite numbers from `least` to `most`; of whole ones if `least` is one."""
    kind, noun = (int, "whole number") if isinstance(least, int) else (float, "number")
    wanted = f"{noun} of at least {least:g}" if most == math.inf else f"{noun}, {least} to {most}"

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (least <= value <= most and math.isfinite(value)):
            raise argparse.ArgumentTypeError(f"it takes a {wanted}; {text!r} is none.")
        return value

    return parse


PORT: Final = number(0, 65_535)
SECONDS: Final = number(0.0)
