"""Readiness: whether this process can do its work, checked at most once a second.

The log is checked by what an append does, which is rolled back.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from django.db import DatabaseError

from ..delivery.bus import make_bus
from ..delivery.bus.base import MISSED
from ..delivery.hub import running_hubs
from ..eventlog import get_event_log
from ..utils.aio import PerLoop, spawn

READY_SECONDS: Final = 3.0  # what the log gets to answer; the bus has ANNOUNCE_TIMEOUT_SECONDS
READY_CACHE_SECONDS: Final = 1.0  # for which the results are returned again
NEEDS_DATABASE: Final = " See that the database runs, and that `manage.py migrate` has been run."
ALIVE_TURN_SECONDS: Final = (
    15.0  # for a turn of the event loop; if it takes longer, the process is not alive
)

logger = logging.getLogger("realtime.health")
_unheard: Final = logging.Logger("realtime.health.bus")  # a bus that is down says so at each call
_unheard.disabled = True


class HealthCheck(NamedTuple):
    """The result of a check, and the seconds it took; `detail` is the reason if it is not ok."""

    name: str
    is_ok: bool
    seconds: float
    detail: str


class Readiness:
    """The last results, which all requests of an event loop share."""

    def __init__(self) -> None:
        self._checking: asyncio.Task[list[HealthCheck]] | None = None
        self._until = 0.0
        self._was_ready = True

    async def find(self) -> list[HealthCheck]:
        """Return the results of the last second, or check now, once for all callers."""
        task = self._checking
        if task is None or (task.done() and asyncio.get_running_loop().time() >= self._until):
            task = self._checking = spawn(self._find())
        return await asyncio.shield(task)

    async def _find(self) -> list[HealthCheck]:
        try:
            found = await asyncio.gather(_timed("log", _check_log), _timed("bus", _check_bus))
        finally:
            self._until = asyncio.get_running_loop().time() + READY_CACHE_SECONDS
        return list(found)

    def note(self, reason: str | None) -> None:
        """Log a change; `reason` is why this process is not ready, or None if it is ready."""
        if self._was_ready != (reason is None):
            self._was_ready = reason is None
            if reason is None:
                logger.info("Ready again.")
            else:
                logger.warning("Not ready: %s", reason)


async def check_turn() -> HealthCheck:
    """Return whether the event loop turns, by how long one turn takes."""
    time = asyncio.get_running_loop().time
    began = time()
    await asyncio.sleep(0)
    seconds = time() - began
    is_ok = seconds <= ALIVE_TURN_SECONDS
    detail = "turns" if is_ok else f"A turn of the event loop has taken {seconds:.0f} s."
    return HealthCheck("loop", is_ok, seconds, detail)


def get_readiness() -> Readiness:
    """Return the readiness of the running event loop; a server process has one."""
    return _readiness.get()


async def _timed(name: str, check: Callable[[], Awaitable[str | None]]) -> HealthCheck:
    """Make a check that returns what is wrong, or None."""
    time = asyncio.get_running_loop().time
    began = time()
    reason = await check()
    return HealthCheck(name, reason is None, time() - began, reason or "works")


async def _check_log() -> str | None:
    try:
        async with asyncio.timeout(READY_SECONDS):
            await get_event_log().check_writable()
    except Exception as error:
        remedy = NEEDS_DATABASE if isinstance(error, DatabaseError) else ""
        return f"The event log can't store: {type(error).__name__}.{remedy}"
    return None


async def _check_bus() -> str | None:
    for hub in running_hubs():
        if hub.bus.is_down:
            return f"The {hub.bus.name} does not answer."
    bus = make_bus(_unheard)
    if not await bus.send("realtime.ready", MISSED):
        return f"The {bus.name} does not answer: {type(bus.failure).__name__}."
    return None


_readiness: Final = PerLoop(Readiness)
