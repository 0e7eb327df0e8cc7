"""Positions: where a reader stands in a topic, and the ids that carry them over the wire.

    "0"                   before the oldest event that is kept
    "<epoch>-<offset>"    after this event; "new-0" where the topic has no event yet
    "<topic>=<id>,..."    on a stream over several topics

Clients store an id and send it back unread. The characters are safe in a URL query and in a
header, and free of the NUL, CR and LF that the SSE standard forbids in an id.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..exceptions import InvalidPosition
from .topic import validate_topic

MAX_OFFSET: Final = 2**63 - 1
UNBORN: Final = "new"  # the epoch of a topic without events; too short to be a real one
_ID = re.compile(r"([a-z0-9]{3,16})-(0|[1-9][0-9]{0,18})")
_EPOCH_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_EPOCH_PAIRS: Final = [a + b for a in _EPOCH_ALPHABET for b in _EPOCH_ALPHABET]


@dataclass(frozen=True, slots=True)
class Position:
    """After event `offset` of the topic's incarnation `epoch`."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}" if self.epoch else "0"


OLDEST: Final = Position("", 0)  # written "0": wherever the kept history begins
START: Final = Position(UNBORN, 0)  # before the first event of a topic that has none


def new_epoch() -> str:
    """Return a name for a new incarnation of a topic: 8 characters, 41 bits."""
    number = int.from_bytes(os.urandom(8))  # at once, in pairs: each append in Redis has one made
    size = len(_EPOCH_PAIRS)
    return "".join([_EPOCH_PAIRS[number // size**place % size] for place in range(4)])


def parse_position(text: str) -> Position:
    """Return the position of one topic's id; raise `InvalidPosition` for what is no such id."""
    if text == "0":
        return OLDEST
    match = _ID.fullmatch(text)
    if match is None or int(match[2]) > MAX_OFFSET or (match[1] == UNBORN and match[2] != "0"):
        raise InvalidPosition(
            f"{text[:80]!r} is not an event id: send back an id that came with an event, "
            "'0' for everything that is kept, or nothing to start now."
        )
    return Position(match[1], int(match[2]))


def format_positions(positions: Mapping[str, Position]) -> str:
    """Return one id that covers several topics, in the order of the mapping."""
    return ",".join(f"{topic}={position}" for topic, position in positions.items())


def parse_positions(text: str, topics: list[str]) -> dict[str, Position]:
    """Return the positions in the id of a stream over `topics`.

    `"0"` stands for the oldest of each. Topics of `text` that are not in `topics` are left out,
    and a topic that `text` does not name is missing from the result: it starts live.
    """
    if text == "0":
        return dict.fromkeys(topics, OLDEST)
    if "=" not in text and len(topics) == 1:
        return {topics[0]: parse_position(text)}
    positions: dict[str, Position] = {}
    for part in text.split(","):
        topic, equals, event_id = part.partition("=")
        if not equals:
            raise InvalidPosition(
                f"{text[:80]!r} is not the id of a stream over several topics: send back an id "
                "that came with an event of this stream, '0', or nothing to start now."
            )
        position = parse_position(event_id)
        if topic in topics:
            positions[validate_topic(topic)] = position
    return positions
