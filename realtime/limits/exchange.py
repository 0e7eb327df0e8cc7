"""The exchange of what was spent, by which a rate holds for all processes together.

While no client is near a limit, a process sends nothing and does not listen. When a bucket is more
than half spent, it publishes once a second how much was spent here, in as many messages as it
takes. That is a total, so a message that is lost or comes twice does no harm. Without a bus each
process counts for itself.
"""

import asyncio
import json
import logging
from time import monotonic, monotonic_ns
from typing import Any, Final, NamedTuple

from ..delivery.announce import announce
from ..delivery.hub import get_hub, running_hubs
from ..delivery.parts import in_parts
from ..delivery.subscription import Subscription
from ..eventlog.base import NewEvent
from ..events.event import Event
from ..events.payload import DEFAULT_TYPE, dumps
from ..processes.registry import this_process
from ..utils.aio import PerLoop, cancel_and_wait, spawn
from .limiter import Key, Limiter

logger = logging.getLogger("realtime.limits")

TOPIC: Final = "realtime.limits"  # for superusers alone
TELL_SECONDS: Final = 1.0
QUIET_SECONDS: Final = 10.0  # without anything to send, after which it stops listening
AGAIN_SECONDS: Final = 5.0  # after a failure
MOST_KEYS: Final = 500  # of rates, and of connections: the newest ones, told each second


class Exchange:
    """Publishes what was spent here, and counts in the limiter what other processes publish."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self._task: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._number = 0  # of the message

    def wake(self) -> None:
        """Start to publish and to listen, if other processes may be there."""
        if self._task is None and monotonic() >= self._not_before:
            self._not_before = monotonic() + AGAIN_SECONDS
            if get_hub().peers.is_active:
                self._task = spawn(self._run())

    async def stop(self) -> None:
        """Stop publishing and listening."""
        if self._task is not None:
            await cancel_and_wait(self._task)

    async def _run(self) -> None:
        hearing: asyncio.Task[None] | None = None
        try:
            async with Subscription() as subscription:
                await subscription.add(TOPIC)
                hearing = spawn(self._hear(subscription))
                last = monotonic()
                while monotonic() < last + QUIET_SECONDS:
                    if await self._tell():
                        last = monotonic()
                    await asyncio.sleep(TELL_SECONDS)
        except Exception:
            logger.warning("Limits hold in each process by itself for now", exc_info=True)
        finally:
            self._task = None
            if hearing is not None:
                await cancel_and_wait(hearing)

    async def _tell(self) -> bool:
        """Publish what is more than half spent, if others are there; return whether anything is."""
        limiter, now = self.limiter, monotonic_ns()
        limiter.divide(processes())
        spent = [(key, each.spent) for key, each in limiter.buckets.items() if each.is_hot(now)]
        connections = list(limiter.crowded())
        if (spent or connections) and limiter.processes > 1:
            # The connections last: a process of an earlier release keeps those of one message.
            totals = [("spent", *each) for each in spent[-MOST_KEYS:]]
            totals += [("open", *each) for each in connections[-MOST_KEYS:]]
            parts = [*in_parts(totals)]
            # As they are: `MAX_EVENT_BYTES` is about the site's own events.
            data = [dumps(self._told(*each, len(parts))) for each in enumerate(parts)]
            await announce([NewEvent(TOPIC, DEFAULT_TYPE, each).to_event() for each in data])
        return bool(spent or connections)

    def _told(self, part: int, totals: list[tuple[str, Key, int]], parts: int) -> dict[str, Any]:
        self._number += 1
        said = {"process": this_process(), "number": self._number, "part": part, "parts": parts}
        kinds = ("spent", "open")
        return said | {
            kind: [[*key, total] for each, key, total in totals if each == kind] for kind in kinds
        }

    async def _hear(self, subscription: Subscription) -> None:
        async for item in subscription:
            # Staff may publish anything to any topic, this one included.
            said = parse(item.data) if isinstance(item, Event) else None
            if said is not None and said.process != this_process():
                self.limiter.hear(*said)


class Told(NamedTuple):
    """A message of another process, which may be one of several parts."""

    process: str
    number: int
    spent: dict[Key, int]
    open: dict[Key, int]
    part: int = 0
    parts: int = 1


def parse(text: str) -> Told | None:
    """Return a message of a process; None for an event that is not one."""
    said = json.loads(text)
    if not isinstance(said, dict):
        return None
    spent, open = _counts(said.get("spent")), _counts(said.get("open"))
    # One of an earlier release has no parts.
    match said.get("process"), said.get("number"), said.get("part", 0), said.get("parts", 1):
        case str() as process, int() as number, int() as part, int() as parts:
            return Told(process, number, spent, open, part, parts)
    return None


def _counts(said: Any) -> dict[Key, int]:
    counts: dict[Key, int] = {}
    for entry in said if isinstance(said, list) else ():
        match entry:
            case [str() as name, str() as client, int() as count] if count > 0:
                counts[name, client] = count
    return counts


def processes() -> int:
    """Return the number of serving processes that this one knows of, itself included."""
    return 1 + max((hub.peers.others for hub in running_hubs()), default=0)


def _make() -> Exchange:
    limiter = Limiter()
    exchange = Exchange(limiter)
    limiter.on_hot = exchange.wake
    return exchange


def get_limiter() -> Limiter:
    """Return the limiter of the running event loop; a server process has one loop and so one."""
    return _exchanges.get().limiter


_exchanges: Final = PerLoop(_make, aclose=Exchange.stop)
