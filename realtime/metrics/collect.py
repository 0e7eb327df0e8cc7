"""The numbers of all processes of this host together, as `/metrics` returns them.

Without `METRICS_DIR`, or where it can't be written, those of this process alone.
"""

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from .. import __version__
from ..conf import settings
from . import server_series  # noqa: F401 - the server counts from here on
from .cells import Kind, cells
from .series import Gauge, refresh_gauges

if TYPE_CHECKING:
    from .counter_files import CounterFiles

BEAT_SECONDS: Final = 5.0  # between two times that gauges are read for the other processes

WORKERS: Final = Gauge("realtime_workers", "Processes of this host that serve.")
BUILD: Final = Gauge(
    "realtime_build_info", "1, of this version.", kind=Kind.MIN, version=[__version__]
)

_lock: Final = threading.Lock()
_beating: Final = WeakSet[asyncio.AbstractEventLoop]()
_files: "dict[str, CounterFiles | None]" = {}  # by the folder; None where it can't be written


def files() -> "CounterFiles | None":
    """Return the files that this process shares with others; opened at the first call.

    Blocks on the disk.
    """
    folder = settings.METRICS_DIR
    with _lock:
        if folder and folder not in _files:
            from .counter_files import CounterFiles  # on POSIX only

            opened = CounterFiles(Path(folder))
            _files[folder] = opened if opened.open() else None
        return _files.get(folder)


def begin(loop: asyncio.AbstractEventLoop) -> None:
    """Share the numbers of this serving process from now on; called before its loop runs."""
    _serve()
    if files() is not None:
        _begin_to_beat(loop)


def _serve() -> None:
    WORKERS.set(1)
    BUILD.set(1, __version__)


def _begin_to_beat(loop: asyncio.AbstractEventLoop) -> None:
    if loop not in _beating:
        _beating.add(loop)
        loop.call_later(BEAT_SECONDS, _beat, loop)


def _beat(loop: asyncio.AbstractEventLoop) -> None:
    refresh_gauges()
    loop.call_later(BEAT_SECONDS, _beat, loop)


async def collect() -> dict[str, int]:
    """Return the numbers of all processes by their names; raises OSError."""
    _serve()
    refresh_gauges()
    totals = await asyncio.to_thread(read)
    if _files.get(settings.METRICS_DIR) is not None:  # under another server `begin` is not called
        _begin_to_beat(asyncio.get_running_loop())
    return totals


def read() -> dict[str, int]:
    """Return the same without reading this process's gauges anew; blocks on the disk."""
    shared = files()
    if shared is None:
        return {record.name: record.value for record in cells.records()}
    return shared.read()
