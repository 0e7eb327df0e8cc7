"""`realtime.delivery.parts`: what no bus has room for at once."""

import pytest

from realtime.delivery.bus.envelope import encode
from realtime.delivery.bus.postgres import MAX_BYTES
from realtime.delivery.parts import PART_BYTES, in_parts
from realtime.eventlog.base import NewEvent
from realtime.events.payload import dumps


@pytest.mark.parametrize("text", ["a", "ž", "🐎", '"', "\\", "\0"], ids=ascii)
def test_each_part_goes_by_the_bus_that_takes_the_least(text):
    items = [[text * (number % 40), number] for number in range(1_000)]
    parts = [*in_parts(items)]
    assert [item for part in parts for item in part] == items
    for part in parts:
        event = NewEvent("realtime." + "x" * 90, "message", dumps({"part": part})).to_event()
        assert len(encode(event.topic, [event], 1_000_000)) <= MAX_BYTES
    assert len(parts) < 2 + sum(len(ascii(item)) for item in items) / (PART_BYTES / 3)


def test_one_that_is_too_long_stands_alone():
    long = "x" * 2 * PART_BYTES
    assert [*in_parts(["a", long, "b", "c"])] == [["a"], [long], ["b", "c"]]
    assert [*in_parts([])] == []
