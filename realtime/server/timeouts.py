"""Time: one sweep finds the connections that are too slow, too idle, or gone.

A timer per connection would be the largest part of an idle one. Daphne walks through all
connections every second; with ten thousand of them that stalls the event loop. Here a connection
is only checked when it can be due.
"""

import asyncio
import select
from collections.abc import Iterator
from typing import Any, Final, Protocol

from realtime.server.access_log import logger
from realtime.server.counters import counters
from realtime.server.limits import Limits

INTERVAL = 0.25
"""Seconds between two sweeps."""

CHECKS_BEFORE_PING: Final = 2
"""Checks of a silent peer before it is pinged; there are two per ping interval."""

SLICE: Final = 100
"""Periodic checks before the event loop gets a turn."""

MAX_LINGERING: Final = 64
"""Peers at once that are given time, though no limit counts them: each has a file descriptor."""

AGAIN_SECONDS = 10.0
"""Seconds that a cancelled application gets for its `finally` before it is cancelled again."""

TURNS: Final = 20
"""Turns of the event loop in which an application may at least take notice of a disconnect."""

_ORDERLY: Final = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere only a reset is noticed
_RESET: Final = select.POLLHUP | select.POLLERR  # reported without being asked for


class Paused(Protocol):
    """A transport that is not being read."""

    def fileno(self) -> int:
        """Return the file descriptor to poll."""

    def peer_left(self, reset: bool) -> None:
        """Take notice that the peer has closed: orderly, or by a reset."""


class Periodic(Protocol):
    """What has to be checked from time to time."""

    def check(self, now: float) -> None:
        """Do what is due. Called twice per ping interval."""


class Timeouts:
    """Find what is due. Each queue belongs to one timeout.

    A queue is a dict, which keeps the order in which its keys were added: with one timeout for all
    of them the oldest entry is always the first to expire. `bodies` and `stalled` are not in order.
    """

    def __init__(self, limits: Limits, ping_interval: float) -> None:
        self.limits = limits
        self.heads: dict[Any, float] = {}  # connections reading a request's head, since when
        self.idle: dict[Any, float] = {}  # connections between two requests, since when
        self.bodies: dict[Any, float] = {}  # connections whose application waits for a body,
        # and when it would have begun to wait had all come at the minimum rate
        self.lingering: set[Any] = set()  # transports of which only the peer's end is awaited
        self.refused: set[Any] = set()  # connections too many, which are told so after their head
        self.stalled: dict[Any, float] = {}  # transports with output waiting, since when
        self.paused: dict[Paused, None] = {}  # transports that are not being read
        self._turns = max(1, round(ping_interval / 2 / INTERVAL))
        self._periodic: list[set[Periodic]] = [set() for _ in range(self._turns)]
        self._turn = 0
        self._next = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def has_room(self) -> bool:
        """Return whether one more peer may be given time to send its request or read its answer."""
        return len(self.lingering) + len(self.refused) < MAX_LINGERING

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sweep from now on."""
        self._task = loop.create_task(self._run(loop))

    def stop(self) -> None:
        """Sweep no more."""
        if self._task is not None:
            self._task.cancel()

    def add(self, periodic: Periodic) -> int:
        """Check it from now on; return the turn that `remove` needs."""
        self._next = (self._next + 1) % self._turns
        self._periodic[self._next].add(periodic)
        return self._next

    def remove(self, periodic: Periodic, turn: int) -> None:
        """Check it no more."""
        self._periodic[turn].discard(periodic)

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            due = loop.time() + INTERVAL
            await asyncio.sleep(INTERVAL)
            counters.loop_lag(loop.time() - due)
            try:
                await self._sweep(loop.time())
            except Exception:  # one bad connection must not end the timeouts of all others
                logger.exception("Error in the timeouts of the connections")

    async def _sweep(self, now: float) -> None:
        limits = self.limits
        for queue, late in (
            (self.heads, list(_expired(self.heads, now - limits.header_timeout))),
            (self.idle, list(_expired(self.idle, now - limits.keep_alive_timeout))),
            (self.bodies, _stale(self.bodies, now - limits.body_timeout)),
        ):
            for connection in late:
                queue.pop(connection, None)
                connection.timed_out()
        for transport in _stale(self.stalled, now - limits.stall_timeout):
            transport.abort()
            counters.stalled_closed()
        self._poll()
        self._turn = (self._turn + 1) % self._turns
        for number, periodic in enumerate(list(self._periodic[self._turn])):
            periodic.check(now)
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    def _poll(self) -> None:
        # A socket that is not read does not say that its peer has left.
        if not self.paused:
            return
        poll = select.poll()
        by_fd = {}
        for transport in self.paused:
            fd = transport.fileno()
            by_fd[fd] = transport
            poll.register(fd, _ORDERLY)
        for fd, events in poll.poll(0):
            by_fd[fd].peer_left(bool(events & _RESET))


def _expired(queue: dict[Any, float], before: float) -> Iterator[Any]:
    for connection, since in queue.items():
        if since > before:
            return
        yield connection


def _stale(queue: dict[Any, float], before: float) -> list[Any]:
    # Progress renews an entry, so this queue is not in order.
    return [transport for transport, since in queue.items() if since <= before]


def cancel_after(seconds: float, task: "asyncio.Task[Any]") -> None:
    """Cancel `task` if it still runs in `seconds`, and from then on until it has ended."""
    task.add_done_callback(_Cancellation(seconds, task).stop)


class _Cancellation:
    # Before Python 3.12, `asyncio.wait_for` swallows a cancellation that comes in the very turn in
    # which what it waits for ends. An application that talks to Redis is full of it.

    __slots__ = ("_loop", "_task", "_timer")

    def __init__(self, seconds: float, task: "asyncio.Task[Any]") -> None:
        self._loop = task.get_loop()
        self._task = task
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(seconds, self._cancel)

    def _cancel(self, turns: int = TURNS) -> None:
        if self._task.done():
            return
        if turns:
            # After a loop that stood still, the disconnect and this are due in one turn. Django's
            # handler waits for a task that it leaves behind when it is cancelled meanwhile.
            self._loop.call_soon(self._cancel, turns - 1)
            return
        self._task.cancel()
        self._timer = self._loop.call_later(AGAIN_SECONDS, self._cancel, 0)

    def stop(self, task: "asyncio.Task[Any]") -> None:
        """Cancel no more: the task has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
