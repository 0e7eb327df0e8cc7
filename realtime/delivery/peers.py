"""The peers: the other processes that listen.

A process that is alone need not announce what the log has: it would get its own events alone, and
on a bus that echoes that costs as much as all the rest of a publication. It has to be proven alone:

1. A hub writes its process's row before it joins the bus, and again every `PROCESS_BEAT_SECONDS`.
2. A beat that finds no other row alive proves it, for two beats from when it began. Not the first
   one, nor one that comes over a lease after the one before: by then others may have taken this
   process for gone.
3. A process with such a beat may not be known to the others. It says once, to all hubs, that it
   has joined. One that gets this is not alone any more; if it was, it beats at once.
4. Such a process checks the heads often for two beats: what was not announced because no other
   knew of it is in the log.
5. Processes of an earlier release have no row. They say hello again and again, each of which
   counts for as long as it says, and take what is said in 3 for a hello.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from ..conf import settings
from ..conf.topics import is_presence_used
from ..processes import registry
from .bus.base import PEERS_TOPIC, Bus, Joined

logger = logging.getLogger("realtime.hub")

PROOF_BEATS: Final = 2  # for how many a beat counts
NEW_CHECK_SECONDS: Final = 0.25  # between two checks of the heads while others may not know of us
FAILED: Final = (
    "Can't write this process's row in the table realtime_process (%s: %s): it announces "
    "everything, and others may not announce to it what it finds in the log. See that the database "
    "can be written to, and that `manage.py migrate` has been run."
)


class Peers:
    """Whether other processes listen, and this one's row, by which they know that it does."""

    def __init__(self, bus: Bus, on_return: Callable[[], None]) -> None:
        self._bus = bus
        self._on_return = on_return
        # Without others: presence counts by the rows of processes.
        is_needed = not bus.is_local or is_presence_used()
        self._interval = settings.PROCESS_BEAT_SECONDS if is_needed else None
        self._time = asyncio.get_running_loop().time
        self.others = 0  # that the last beat has found alive
        self._alone_until = 0.0
        self._new_until = self._time() + PROOF_BEATS * (self._interval or 0.0)
        self._hello_until = 0.0  # until when peers of an earlier release are counted
        self._last: datetime | None = None  # beat, by the database's clock
        self._has_failed = False
        self._heard = 0  # how often others have joined
        self._is_known = False  # to the others, as far as we can tell
        self._has_tried = asyncio.Event()
        self._is_due = asyncio.Event()  # a beat, at once

    @property
    def is_active(self) -> bool:
        """Return whether this process has a row, on which `run` works."""
        return self._interval is not None

    @property
    def is_alone(self) -> bool:
        """Return whether it is proven that no other process listens."""
        return self._hello_until <= self._time() < self._alone_until

    @property
    def is_new(self) -> bool:
        """Return whether others may not know that this process listens."""
        return self._time() < self._new_until

    async def run(self) -> None:
        """Keep the row alive until cancelled."""
        assert self._interval is not None
        await self._beat(self._interval)
        self._has_tried.set()
        self._bus.join([PEERS_TOPIC])
        with suppress(TimeoutError):
            async with asyncio.timeout(settings.ANNOUNCE_TIMEOUT_SECONDS):
                await self._bus.settled()
        while True:
            if not self._is_known and self._last is not None:
                self._is_known = await self._bus.send(PEERS_TOPIC, Joined(registry.this_process()))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._is_due.wait()
            self._is_due.clear()
            await self._beat(self._interval)

    async def registered(self) -> None:
        """Wait for the first beat, no longer than for the check that makes up for it."""
        if self.is_active:
            with suppress(TimeoutError):
                async with asyncio.timeout(NEW_CHECK_SECONDS):
                    await self._has_tried.wait()

    def receive(self, joined: Joined) -> None:
        """Take note of a process that listens."""
        if joined.seconds is not None:
            self._hello_until = max(self._hello_until, self._time() + joined.seconds)
            if joined.is_asking:
                self._is_known = False
                self._is_due.set()
            return
        self._heard += 1
        if self.is_alone:  # else it changes nothing, and all would beat whenever one comes
            self._is_due.set()
        self._alone_until = 0.0

    async def leave(self) -> None:
        """Delete the row; where that fails, it counts as alive for its lease."""
        if self.is_active:
            try:
                await registry.leave()
            except Exception as error:
                logger.info("Can't delete this process's row: %r", error)

    async def _beat(self, interval: float) -> None:
        began, heard = self._time(), self._heard
        try:
            beat = await registry.beat()
        except Exception as error:
            if not self._has_failed:
                logger.warning(FAILED, type(error).__name__, error)
            self._has_failed = True
            return
        self._has_failed = False
        self.others = beat.others
        lease = timedelta(seconds=settings.PROCESS_LEASE_SECONDS)
        last, self._last = self._last, beat.at
        if beat.is_new or last is None or not last <= beat.at <= last + lease:
            self._alone_until = 0.0
            self._is_known = False
            self._new_until = self._time() + PROOF_BEATS * interval
            if last is not None:  # else no feed has begun yet
                self._on_return()
        elif beat.others or heard != self._heard:
            self._alone_until = 0.0
        else:
            self._alone_until = began + PROOF_BEATS * interval
