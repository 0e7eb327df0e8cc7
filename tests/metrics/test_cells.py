"""The records that numbers are kept in."""

import mmap
import sys
import threading
from itertools import pairwise

import pytest

from realtime.metrics.cells import (
    CELLS,
    MAGIC,
    RECORD_BYTES,
    RECORDS,
    SIZE,
    UNSET,
    Cells,
    Kind,
    parse,
)


def test_a_number_is_found_by_its_name():
    cells = Cells()
    first = cells.allot(Kind.COUNT, "a_total", "b_total")
    gauge = cells.allot(Kind.MIN, 'c{d="e"}')
    cells.values[first] += 2
    cells.values[first + CELLS] += 3
    cells.values[gauge] = -1
    expected = [("a_total", "c", 2), ("b_total", "c", 3), ('c{d="e"}', "m", -1)]
    assert [(name, chr(kind), value) for name, kind, value in cells.records()] == expected


def test_numbers_move_with_what_was_counted():
    cells = Cells()
    index = cells.allot(Kind.COUNT, "a_total")
    least = cells.allot(Kind.MIN, "least")
    cells.values[index] += 2
    buffer = mmap.mmap(-1, SIZE)
    cells.move_to(buffer)
    cells.values[index] += 1
    cells.values[least] = 1
    assert [record.value for record in parse(buffer[:])] == [3, 1]
    cells.forget()
    assert [record.value for record in cells.records()] == [0, UNSET]
    cells.values[index] += 1
    assert [record.value for record in parse(buffer[:])] == [3, 1]


def test_threads_lose_no_count():
    cells = Cells()
    index = cells.allot(Kind.COUNT, "a_total")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def count() -> None:
        for _ in range(5_000):
            cells.values[index] += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert cells.values[index] == 20_000


def test_a_name_that_no_record_has_room_for_is_refused():
    with pytest.raises(ValueError, match="no room"):
        Cells().allot(Kind.COUNT, "x" * (RECORD_BYTES - 8))


def test_there_are_so_many_records_and_no_more():
    cells = Cells()
    indexes = [cells.allot(Kind.COUNT, f"n{n}") for n in range(RECORDS - 1)]
    assert {b - a for a, b in pairwise(indexes)} == {CELLS}
    with pytest.raises(ValueError, match="no room"):
        cells.allot(Kind.COUNT, "one_more")
    assert len(list(cells.records())) == RECORDS - 1


def record(value: int, kind: bytes, name: bytes) -> bytes:
    head = MAGIC.to_bytes(8, sys.byteorder).ljust(RECORD_BYTES, b"\0")
    own = value.to_bytes(8, sys.byteorder, signed=True) + kind + name
    return (head + own.ljust(RECORD_BYTES, b"\0")).ljust(SIZE, b"\0")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(SIZE),
        record(1, b"c", b"a")[:-1],
        record(-1, b"c", b"a"),
        record(2**62 + 1, b"c", b"a"),
        record(-(2**63), b"s", b"a"),
        record(1, b"x", b"a"),
        record(1, b"c", b"\xff"),
    ],
)
def test_what_is_no_file_of_counters_is_refused(data):
    assert [each.value for each in parse(record(1, b"c", b"a"))] == [1]
    with pytest.raises(ValueError, match=r"not a file|can't be|not a valid|can't decode"):
        list(parse(data))
