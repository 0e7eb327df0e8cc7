"""The peers: the other processes that listen.

A process that is alone need not announce: it would get its own events alone, and on a bus that
echoes that costs as much as all the rest of a publication. So each process tells its peers:

1. A process that begins to listen joins the peers' topic. Once it has, it sends a heartbeat there
   that asks which others listen.
2. Whatever process receives a heartbeat that asks, or one of a peer it did not know, answers with
   its own heartbeat at once.
3. A process that is answered checks the heads at once: what the other one has not announced,
   because it knew of no peer, is in the log.
4. From then on each sends a heartbeat every `HEAD_CHECK_SECONDS`, which says when the next one
   comes.
5. A peer whose heartbeats have stayed away for `LEASE_HEARTBEATS` of its intervals has gone.
6. After the topic was joined anew (the bus was down), it begins at 1.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ..conf import settings
from .bus.base import PEERS_TOPIC, Bus, Heartbeat, this_process

LEASE_HEARTBEATS: Final = 5


class Peers:
    """The peers that this process knows of, and its heartbeats to them."""

    def __init__(self, bus: Bus, on_answer: Callable[[], None]) -> None:
        self._bus = bus
        self._on_answer = on_answer
        self._leases: dict[str, float] = {}  # until when a peer is counted, by the loop's clock
        self._unanswered: dict[str, None] = {}  # peers that the next heartbeat answers
        self._is_joined = False
        self._is_asking = True
        self._is_due = asyncio.Event()  # a heartbeat, at once

    @property
    def is_alone(self) -> bool:
        """Return whether no other process listens, as far as is known."""
        return not self._leases

    async def run(self) -> None:
        """Send heartbeats until cancelled."""
        while True:
            self._bus.join([PEERS_TOPIC])  # each time: perhaps the bus has forgotten us
            if self._is_joined:
                await self._send_heartbeat()
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.HEAD_CHECK_SECONDS):
                    await self._is_due.wait()
            self._is_due.clear()
            self._expire()

    def joined(self) -> None:
        """Ask which others listen: the peers' topic has been joined, or joined again."""
        self._is_joined = self._is_asking = True
        self._is_due.set()

    def receive(self, heartbeat: Heartbeat) -> None:
        """Take note of a peer, and answer it if it asks or is new."""
        if heartbeat.is_asking or heartbeat.process not in self._leases:
            self._unanswered[heartbeat.process] = None
            self._is_due.set()
        now = asyncio.get_running_loop().time()
        self._leases[heartbeat.process] = now + LEASE_HEARTBEATS * heartbeat.interval
        if this_process() in heartbeat.answers:
            self._on_answer()

    async def _send_heartbeat(self) -> None:
        is_asking, answers = self._is_asking, list(self._unanswered)
        self._is_asking = False
        heartbeat = Heartbeat(this_process(), settings.HEAD_CHECK_SECONDS, is_asking, answers)
        if await self._bus.send(PEERS_TOPIC, heartbeat):
            for process in answers:
                self._unanswered.pop(process, None)
        else:
            self._is_asking = self._is_asking or is_asking

    def _expire(self) -> None:
        now = asyncio.get_running_loop().time()
        for process, until in list(self._leases.items()):
            if until < now:
                del self._leases[process]
