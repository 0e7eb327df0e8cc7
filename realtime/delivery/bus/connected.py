"""A bus over one server's connection of a process: kept up, and with it what has been joined."""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, TypeVar

from ...conf import settings
from ...utils.aio import cancel_and_wait, spawn
from .base import MISSED, Bus, Message, OnMessage
from .dropped import DroppedMessages
from .envelope import decode

T = TypeVar("T")

MEMBERSHIP_BATCH: Final = 500  # topics joined and left before the server is asked whether it knows
FIRST_PAUSE_SECONDS: Final = 0.25  # before the server is connected to again; doubles
LONGEST_PAUSE_SECONDS: Final = 5.0


def opened(connection: T | None) -> T:
    """Return a connection; raise ConnectionError where there is none."""
    if connection is None:
        raise ConnectionError("There is no connection at the moment")
    return connection


class ConnectedBus(Bus):
    """Connects again and again, and joins everything anew each time.

    There is one way back from every fault: what fails, or is silent, ends the connection.
    """

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger)
        self.dropped = DroppedMessages(logger, self.name)
        self._topics: set[str] = set()  # that are to be joined
        self._joined: set[str] = set()  # of which this connection's server knows
        self._changed: dict[str, None] = {}  # topics to be joined or left, or both, on it
        self._pause = FIRST_PAUSE_SECONDS
        self._settled = asyncio.Event()  # all changes so far are made, or have failed for now
        self._settled.set()
        self._settling = self._settled  # that of the changes which are being made
        self._is_due = asyncio.Event()  # something has changed, or the connection has failed

    def start(self, on_message: OnMessage) -> None:
        self.is_running = True
        self._on_message = on_message
        self._running = spawn(self._run())

    def join(self, topics: Iterable[str]) -> None:
        self._change([topic for topic in topics if topic not in self._topics])

    def leave(self, topics: Iterable[str]) -> None:
        self._change([topic for topic in topics if topic in self._topics])

    async def settled(self) -> None:
        await self._settled.wait()

    async def send(self, topic: str, message: Message) -> bool:
        try:
            async with asyncio.timeout(settings.ANNOUNCE_TIMEOUT_SECONDS):
                await self._send(topic, message)
        except Exception as error:
            self.note_failure("takes no announcements", error)
            return False
        if not self.is_running:  # else only what comes back proves that it works
            self.note_success()
        return True

    async def stop(self) -> None:
        self.is_running = False
        await cancel_and_wait(self._running)
        await self._disconnect()  # that may have cut it, as may the end of a loop: then once more
        self._let_go()

    def _deliver(self, data: bytes) -> None:
        """Hand on what has come; what no process of this site has sent is dropped."""
        try:
            found = decode(data)
            if found is not None and found[0] in self._topics:  # not left, nor sharing a channel
                self._on_message(*found)
        except Exception as error:
            self.dropped.add(error)

    # -- what a server's client has to do; what raises ends the connection

    @abstractmethod
    async def _connect(self) -> None:
        """Connect to listen."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """Close what `_connect` has opened, or has begun to open, if it has; never raise.

        Called again, it closes what a cancellation has left open.
        """

    @abstractmethod
    async def _change_memberships(self, left: Sequence[str], joined: Sequence[str]) -> None:
        """Ask the server to forget topics, then to bring others."""

    @abstractmethod
    async def _confirm(self) -> None:
        """Wait until the server has done what it was asked; raise if it does not answer."""

    @abstractmethod
    async def _send(self, topic: str, message: Message) -> None:
        """Send from the running event loop, whether connected or not."""

    # -- the connection

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(settings.ANNOUNCE_TIMEOUT_SECONDS):
                    await self._connect()
                self._changed = dict.fromkeys(self._topics)
                await self._keep()
            except Exception as error:
                self.note_failure("has no connection", error)
            finally:
                self._joined.clear()
                await self._disconnect()
            self._let_go()
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    async def _keep(self) -> None:
        """Make the server know what is joined, and see again and again that it answers."""
        while True:
            self._is_due.clear()
            await self._settle()
            self.note_success()
            self._pause = FIRST_PAUSE_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.HEAD_CHECK_SECONDS):
                    await self._is_due.wait()

    async def _settle(self) -> None:
        while True:
            # Others join and leave all the time: nobody waits for those that come after.
            self._settling, count = self._settled, len(self._changed)
            for begin in range(0, max(count, 1), MEMBERSHIP_BATCH):
                await self._settle_batch(min(count - begin, MEMBERSHIP_BATCH))
            self._settling.set()
            if not self._changed:
                return

    async def _settle_batch(self, count: int) -> None:
        changed = list(islice(self._changed, count))
        for topic in changed:
            del self._changed[topic]
        left = [topic for topic in changed if topic in self._joined]
        joined = [topic for topic in changed if topic in self._topics]
        async with asyncio.timeout(settings.ANNOUNCE_TIMEOUT_SECONDS):
            await self._change_memberships(left, joined)
        await self._confirm()
        self._joined.difference_update(left)
        self._joined.update(joined)
        for topic in joined:
            if topic in self._topics:
                self._on_message(topic, MISSED)

    def _let_go(self) -> None:
        self._settling.set()
        self._settled.set()

    def _rejoin(self, topic: str) -> None:
        """Join a topic anew of which the server does not know any more."""
        if topic in self._topics:
            self._joined.discard(topic)
            self._changed[topic] = None
            self._is_due.set()

    def _change(self, topics: Collection[str]) -> None:
        self._topics.symmetric_difference_update(topics)
        self._changed.update(dict.fromkeys(topics))
        self._is_due.set()
        if not self.is_down and self._settled is self._settling:
            self._settled = asyncio.Event()
