"""Series of a test's own, and a process that counts."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from realtime.metrics import cells, series
from realtime.metrics.cells import Cells


@contextmanager
def own_series() -> Iterator[None]:
    """Have series made within be forgotten afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        own = Cells()
        patch.setattr(cells, "cells", own)
        patch.setattr(series, "cells", own)
        before = dict(series.registry)
        series.registry.clear()
        try:
            yield
        finally:
            series.registry.clear()
            series.registry.update(before)


COUNT = """
import sys
from pathlib import Path
from realtime.metrics.cells import Kind, cells
from realtime.metrics.counter_files import CounterFiles
count = cells.allot(Kind.COUNT, "a_total")
now, least = cells.allot(Kind.SUM, "now"), cells.allot(Kind.MIN, "least")
cells.values[least] = int(sys.argv[2])
cells.values[count] += 1
print(CounterFiles(Path(sys.argv[1])).open(), flush=True)
for line in sys.stdin:
    cells.values[count] += int(line)
    cells.values[now] += int(line)
    print(line, end="", flush=True)
"""


class Process:
    """A process that has counted 1, counts what it is told, and says when it has."""

    def __init__(self, folder: Path, least: int = 0) -> None:
        command = [sys.executable, "-c", COUNT, str(folder), str(least)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._answer() == "True\n"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def count(self, amount: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{amount}\n")
        self.process.stdin.flush()
        self._answer()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()
