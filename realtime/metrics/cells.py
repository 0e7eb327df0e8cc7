"""Cells: the numbers of a process, each a name and an 8-byte value, in memory or a mapped file.

A value is written by one aligned store of 8 bytes, so that no reader of the file sees half of one.
After a SIGKILL what was counted is in the file: the kernel's page cache has it.
"""

import os
import sys
import threading
from collections.abc import Iterator
from enum import IntEnum
from mmap import mmap
from typing import Final, NamedTuple

CELL_BYTES: Final = 8
RECORD_BYTES: Final = 128  # the value, a byte for the kind, and the name
RECORDS: Final = 1_024
SIZE: Final = RECORD_BYTES * RECORDS
CELLS: Final = RECORD_BYTES // CELL_BYTES  # of a record; the first one is the value
MAX_NAME_BYTES: Final = RECORD_BYTES - CELL_BYTES - 1
MAGIC: Final = 0x72745F6D_00000001  # the value of record 0, which has no name
UNSET: Final = -1  # of a `Kind.MIN`
MAX_VALUE: Final = 2**62  # in nanoseconds, 146 years


class Kind(IntEnum):
    """How values of several processes are combined, and whether one outlives its process."""

    COUNT = ord("c")  # added up, and kept
    SUM = ord("s")  # added up while the process lives
    MIN = ord("m")  # the least one of the living that have one


class Record(NamedTuple):
    """One number of one process."""

    name: str
    kind: Kind
    value: int


class Cells:
    """The numbers of this process.

    Count by `values[index] += 1`, with an index of `allot`, from any thread: between the load and
    the store no other thread can run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 1
        self._buffer: bytearray | mmap = bytearray(SIZE)
        self.values = memoryview(self._buffer).cast("q")
        self.values[0] = MAGIC

    def allot(self, kind: Kind, *names: str) -> int:
        """Return the index of the first of new numbers, which are 0 and follow each other."""
        with self._lock:
            first = self._count
            for name in names:
                encoded = name.encode("ascii")
                if self._count == RECORDS or len(encoded) > MAX_NAME_BYTES:
                    raise ValueError(f"There is no room for the series {name}.")
                start = self._count * RECORD_BYTES + CELL_BYTES
                self._buffer[start + 1 : start + 1 + len(encoded)] = encoded
                self._buffer[start] = kind  # last: a record without a kind is none yet
                self._count += 1
            return first * CELLS

    def move_to(self, buffer: bytearray | mmap) -> None:
        """Count in `buffer`, of `SIZE` zero bytes, from now on; it begins with what was counted."""
        with self._lock:
            values = memoryview(buffer).cast("q")
            # From here on without a call, so that no thread counts what would be left behind.
            buffer[:] = self._buffer[:]
            self._buffer, self.values = buffer, values

    def forget(self) -> None:
        """Begin anew in memory, with nothing counted: in a process that was forked off."""
        self._lock = threading.Lock()
        self.move_to(bytearray(SIZE))
        for record in range(1, self._count):
            has_none = self._buffer[record * RECORD_BYTES + CELL_BYTES] == Kind.MIN
            self.values[record * CELLS] = UNSET if has_none else 0

    def records(self) -> Iterator[Record]:
        """Yield the numbers of this process."""
        return parse(bytes(self._buffer))


def parse(data: bytes) -> Iterator[Record]:
    """Yield the records of a file; raise ValueError for data that is not such a file."""
    if len(data) != SIZE or int.from_bytes(data[:CELL_BYTES], sys.byteorder) != MAGIC:
        raise ValueError("not a file of counters")
    for start in range(RECORD_BYTES, SIZE, RECORD_BYTES):
        record = data[start : start + RECORD_BYTES]
        if not record[CELL_BYTES]:
            return
        value = int.from_bytes(record[:CELL_BYTES], sys.byteorder, signed=True)
        name = record[CELL_BYTES + 1 :].rstrip(b"\0").decode("ascii")
        kind = Kind(record[CELL_BYTES])
        if abs(value) > MAX_VALUE or (kind is Kind.COUNT and value < 0):
            raise ValueError(f"{name!r:.60} can't be {value}")
        yield Record(name, kind, value)


cells: Final = Cells()
if hasattr(os, "register_at_fork"):  # a mapped file would be shared with the parent
    os.register_at_fork(after_in_child=cells.forget)
