"""What a check says about a contestant: it works, it fails as was seen, or it is not offered."""

import re
from typing import Any, Final

import pytest

WORKS: Final = "works"
FAILS: Final = "fails"
NOT_OFFERED: Final = "not offered"
TOPICS: Final = {
    1: "WebSocket basics",
    2: "Variants",
    3: "Auth by query token",
    4: "Auth by cookie",
    5: "Auth by first message",
    6: "Connection manager",
    7: "Many workers",
    8: "High volume",
    9: "Heartbeats",
    10: "SSE",
    11: "SSE keepalive",
    12: "SSE resume",
    13: "NDJSON",
    14: "File streaming",
    15: "LLM tokens",
    16: "Backpressure",
    17: "Disconnect during long work",
    18: "Production notes",
    20: "Common mistakes",
}


_RANDOM: Final = re.compile(r"\b(public|room|user)\.\w+")  # a check's own topic


def note(error: Exception) -> str:
    """The sentence, the same in each run."""
    return _RANDOM.sub("<topic>", str(error))


class Seen(AssertionError):
    """The contestant behaves otherwise: one sentence of what was seen, the same in each run."""


class NotOffered(Exception):
    """A probe has found that the contestant has no such thing: one sentence of what it answered."""


def row(number: int, check: str) -> Any:
    """Mark a test as a check of a row of the chapter: what it says, in a short sentence."""
    return pytest.mark.row(number, TOPICS[number], check)


def see(true: object, otherwise: str) -> None:
    """Go on if it is true; else this was seen."""
    if not true:
        raise Seen(otherwise)
