"""Set the clock of a process wrong, and choose the code that it runs.

`CHAOS_CLOCK` names a file with the seconds by which the clock is wrong. The wall clock alone is
changed: the clock that sleeps and time limits are measured by never jumps. `CHAOS_CODE` names a
file with the folder that is searched first for modules, if any, when the process starts.

Python imports this module in every process that has its folder on PYTHONPATH.
"""

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import time_machine

LOOK_SECONDS = 0.02


def _follow(path: Path) -> None:
    known, travel = 0.0, None
    while True:
        time.sleep(LOOK_SECONDS)
        with suppress(OSError, ValueError):  # nothing stands in it while it is written
            seconds = float(path.read_text())
            if seconds == known:
                continue
            if travel is not None:
                travel.stop()
                travel = None
            if seconds:
                travel = time_machine.travel(time.time() + seconds)
                travel.start()
            known = seconds


with suppress(KeyError, OSError):  # most sites have no other code
    sys.path.insert(0, Path(os.environ["CHAOS_CODE"]).read_text())
threading.Thread(target=_follow, args=[Path(os.environ["CHAOS_CLOCK"])], daemon=True).start()
