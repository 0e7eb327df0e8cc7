"""Time: one sweep finds the connections that are too slow, too idle, or gone.

A timer per connection would be the largest part of an idle one. Daphne walks through all
connections every second; with ten thousand of them that stalls the event loop. Here a connection
is only looked at when it can be due.
"""

import asyncio
import select
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from realtime.server.access_log import logger

if TYPE_CHECKING:
    from realtime.server.limits import Limits

INTERVAL = 0.25
"""Seconds between two sweeps."""

ORDERLY = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere only a reset is noticed
RESET = select.POLLHUP | select.POLLERR  # reported without being asked for
SLICE = 100
"""WebSockets visited before the event loop gets a turn."""


class Pollable(Protocol):
    def fileno(self) -> int: ...

    def gone(self, reset: bool) -> None: ...


class Visited(Protocol):
    def visit(self, now: float) -> None:
        """Called twice per ping interval."""


class Watch:
    """The queues of what may become due. A dict keeps the order in which its keys were added, so
    with one timeout per queue the oldest entry is always the first to expire."""

    def __init__(self, limits: "Limits", ping_interval: float) -> None:
        self.limits = limits
        self.heads: dict[Any, float] = {}  # connections reading a request's head, since when
        self.idle: dict[Any, float] = {}  # connections between two requests, since when
        self.bodies: dict[Any, float] = {}  # connections whose application waits for a body
        self.stalled: dict[Any, float] = {}  # transports with output waiting, since when
        self.paused: dict[Pollable, None] = {}  # transports that are not being read
        self._visits = max(1, round(ping_interval / 2 / INTERVAL))
        self._buckets: list[set[Visited]] = [set() for _ in range(self._visits)]
        self._turn = 0
        self._next = 0
        self._task: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._run(loop))

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def add(self, visited: Visited) -> int:
        """Have it visited from now on; the number is what `remove` needs."""
        self._next = (self._next + 1) % self._visits
        self._buckets[self._next].add(visited)
        return self._next

    def remove(self, visited: Visited, bucket: int) -> None:
        self._buckets[bucket].discard(visited)

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self._sweep(loop.time())
            except Exception:  # one bad connection must not end the watch over all others
                logger.exception("Error in the watch over the connections")

    async def _sweep(self, now: float) -> None:
        limits = self.limits
        for queue, timeout in (
            (self.heads, limits.header_timeout),
            (self.idle, limits.keep_alive_timeout),
            (self.bodies, limits.body_timeout),
        ):
            for connection in list(_expired(queue, now - timeout)):
                queue.pop(connection, None)
                connection.timed_out()
        for transport in _stale(self.stalled, now - limits.stall_timeout):
            transport.abort()
        self._poll()
        self._turn = (self._turn + 1) % self._visits
        for number, visited in enumerate(list(self._buckets[self._turn])):
            visited.visit(now)
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    def _poll(self) -> None:
        """A socket that is not read does not say that its peer has left; ask."""
        if not self.paused:
            return
        poll = select.poll()
        by_fd = {}
        for transport in self.paused:
            fd = transport.fileno()
            by_fd[fd] = transport
            poll.register(fd, ORDERLY)
        for fd, events in poll.poll(0):
            by_fd[fd].gone(bool(events & RESET))


def _expired(queue: dict[Any, float], before: float) -> Iterator[Any]:
    for connection, since in queue.items():
        if since > before:
            return
        yield connection


def _stale(queue: dict[Any, float], before: float) -> list[Any]:
    # Progress renews an entry in its place, so this queue is not in order.
    return [transport for transport, since in queue.items() if since <= before]
