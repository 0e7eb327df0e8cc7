"""The register of processes: a row for each that listens, so that the others know of it.

A process writes `beat` in its row again and again. Whether others are alive is asked by the
database's clock alone, and compared with one's own beat: the clocks of hosts may disagree, and
while no process can write, none counts as gone.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar

from django.apps import apps
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.dispatch import Signal

from ..conf import settings
from ..utils.aio import PerLoop, shielded, spawn
from ..utils.primary import primary_rows
from ..utils.sqlite import wait_at_most
from ..utils.threads import CLOSE_SECONDS, DATABASE
from .status import get_status

T = TypeVar("T")

STALE_LEASES: Final = 10  # after which the row of a process that has gone is deleted
BUSY_MS: Final = 250  # to wait for another writer of SQLite; the next beat comes soon

process_leaving: Final = Signal()
"""Sent with the `name` of a process in a thread, before its row is deleted."""

_HOST: Final = secrets.token_hex(8)
_in_turn: Final = PerLoop(asyncio.Lock)


class Beat(NamedTuple):
    """What a process learns when it has written its row."""

    at: datetime  # by the database's clock
    is_new: bool  # there was no row of this process
    others: int  # processes whose rows are alive


def this_process() -> str:
    """Return the name by which this process is known to the others.

    With the process id, since servers that fork after the import share everything else.
    """
    return f"{_HOST}.{os.getpid()}"


def own_row() -> dict[str, Any]:
    """Return the columns of this process's row that stay as they are."""
    package: Any = apps.get_app_config("realtime").module
    host = socket.gethostname()
    return {"name": this_process(), "host": host, "version": package.__version__}


async def beat() -> Beat:
    """Write this process's row, and return what it finds; raises what the database does."""
    # A thread can't be cancelled: what is written goes on, and `leave` has to come after it.
    columns = get_status().columns()
    return await shielded(spawn(_run(lambda name: _beat(name, columns))))


async def leave() -> None:
    """Delete this process's row."""
    await shielded(spawn(_run(_leave)))


def prune() -> int:
    """Delete the rows of processes that have gone; return how many there were."""
    stale = timedelta(seconds=STALE_LEASES * settings.PROCESS_LEASE_SECONDS)
    count, _ = _rows().filter(beat__lt=Now() - stale).delete()
    return count


async def _run(function: Callable[[str], T]) -> T:
    # One after the other: a hub that stops must not delete the row of the next one.
    async with _in_turn.get():
        call = asyncio.wrap_future(DATABASE.submit(function, this_process()))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            # A server that ends cancels all tasks, and leaves then. The thread is still at it.
            call.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # seen
            await asyncio.wait([call], timeout=CLOSE_SECONDS)
            raise


def _beat(name: str, columns: Mapping[str, Any] = {}) -> Beat:
    rows = _rows()
    with wait_at_most(rows.db, BUSY_MS):
        is_new = not rows.filter(name=name).update(beat=Now(), **columns)
        if is_new:  # the first one; or a flush, a restored backup, or `prune` has taken it
            prune()
            now = Now()
            row = rows.model(**own_row(), started=now, beat=now, **columns)
            rows.bulk_create([row], ignore_conflicts=True)
    at = rows.values_list("beat", flat=True).get(name=name)
    alive = rows.filter(beat__gt=at - timedelta(seconds=settings.PROCESS_LEASE_SECONDS))
    return Beat(at, is_new, alive.exclude(name=name).count())


def _leave(name: str) -> None:
    rows = _rows()
    with wait_at_most(rows.db, BUSY_MS):
        process_leaving.send(None, name=name)
        rows.filter(name=name).delete()


def _rows() -> QuerySet[Any]:
    # Not imported: this module is loaded before the apps are ready.
    model: Any = apps.get_model("realtime", "Process")
    return primary_rows(model)
