"""Cookies in quotes, read in linear time.

Django and others read them with Python's `http.cookies`, which took time in the square of a value's
length before 3.11.10 and 3.12.6 (CVE-2024-7592): a third of a second for 8 KB from anyone.
"""

import re
import sys
from http import cookies
from typing import Final

ESCAPE: Final = re.compile(r"\\(?:([0-3][0-7]{2})|(.))")


def is_quadratic(version: tuple[int, ...]) -> bool:
    """Return whether that Python's `http.cookies` is the old one."""
    return version < (3, 11, 10) or (3, 12) <= version < (3, 12, 6)


def unquote(value: str) -> str:
    """Return what a value in quotes stands for, and any other as it is."""
    if len(value) < 2 or not value[0] == value[-1] == '"':
        return value
    return ESCAPE.sub(_character, value[1:-1])


def install() -> None:
    """Have `http.cookies`, where it is the old one, read values with `unquote`."""
    if is_quadratic(sys.version_info[:3]):
        vars(cookies)["_unquote"] = unquote


def _character(escape: re.Match[str]) -> str:
    octal, character = escape.groups()
    return chr(int(octal, 8)) if octal else character
