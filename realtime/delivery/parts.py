"""What is too much for one message of a bus, in parts that every bus takes."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from ..events.payload import dumps

PART_BYTES: Final = 4_000  # of a part's items as they go over the bus: JSON in JSON


def in_parts(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield the items, which are JSON, in as few lists as are within `PART_BYTES` each."""
    part: list[Any] = []
    size = 0
    for item in items:
        length = len(json.dumps(dumps(item)))
        if part and size + length > PART_BYTES:
            yield part
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield part
