"""The bus over a Channels layer: a topic is a group, and a process has one channel for all."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from channels.exceptions import ChannelFull

from ...conf import settings
from ...utils.aio import cancel_and_wait, spawn
from ...utils.turns import Turns
from .base import MISSED, Bus, Message, OnMessage
from .cipher import NotAuthentic
from .connections import close_connections
from .dropped import DroppedMessages
from .envelope import ECHO_TYPE, from_message, to_message

try:
    from cryptography.fernet import InvalidToken
except ImportError:  # then nothing is encrypted

    class InvalidToken(Exception):  # type: ignore[no-redef]
        """Never raised."""


MEMBERSHIP_BATCH: Final = 50  # group memberships changed at once
RETRY_SECONDS: Final = 1.0  # pause after an error of the layer


class ChannelsBus(Bus):
    """Sends to groups of the layer, and keeps this process' channel in the groups of its topics."""

    name = "channel layer"
    echoes_to_sender = True

    def __init__(self, layer: Any, logger: logging.Logger, *, is_authentic: bool = False) -> None:
        super().__init__(logger, is_authentic=is_authentic)
        self._layer = layer
        self.dropped = DroppedMessages(logger, self.name)
        self._channel = ""  # empty until the layer has given one
        self._has_channel = asyncio.Event()
        self._has_heard = asyncio.Event()  # since the last echo was sent
        self._joined: dict[str, bool] = {}  # whether the layer has taken it, by topic
        self._turns = Turns()  # of the same topics, to be renewed
        self._changed: dict[str, None] = {}  # topics whose membership in the layer may be wrong
        self._failed: set[str] = set()  # those that the layer has not let us join, or leave
        self._membership: asyncio.Task[None] | None = None

    def start(self, on_message: OnMessage) -> None:
        self.is_running = True
        self._on_message = on_message
        self._listening = spawn(self._listen())
        self._watching = spawn(self._watch())

    def join(self, topics: Iterable[str]) -> None:
        for topic in topics:
            self._joined.setdefault(topic, False)
            self._turns.add(topic)
            self._change_membership(topic)

    def leave(self, topics: Iterable[str]) -> None:
        for topic in topics:
            self._joined.pop(topic, None)
            self._turns.discard(topic)
            self._change_membership(topic)

    async def settled(self) -> None:
        while self._membership is not None:
            await asyncio.shield(self._membership)

    async def send(self, topic: str, message: Message) -> bool:
        content = to_message(topic, message)
        sent = await self._call("takes no announcements", self._layer.group_send, topic, content)
        if sent and not self.is_running:  # else only what comes back proves that the layer works
            self.note_success()
        return sent

    async def stop(self) -> None:
        self.is_running = False
        # First leave the groups: a layer may keep members that have gone for a day. It gets the
        # time it needs for that, unless it fails.
        self.leave([*self._joined, *self._failed, *self._changed])
        if self._membership is not None:
            if not self._channel:  # nor was anything joined
                await cancel_and_wait(self._membership)
            else:
                await asyncio.wait([self._membership])
        await cancel_and_wait(self._watching)
        await cancel_and_wait(self._listening)

    # -- listening

    async def _listen(self) -> None:
        while True:
            try:
                message = await self._receive()
            except InvalidToken:
                # Any process that can write to Redis can send it: nothing of the layer has failed.
                self._has_heard.set()
                self.dropped.add(NotAuthentic())
                await asyncio.sleep(0)
                continue
            except Exception as error:
                self.note_failure("can't be listened to", error)
                await asyncio.sleep(RETRY_SECONDS)
                self._rejoin(self._joined)
                continue
            self._has_heard.set()
            try:
                if found := from_message(message):
                    self._on_message(*found)
            except Exception as error:
                self.dropped.add(f"not an announcement of ours ({error!r})")
            # receive() does not wait while there are messages: without this, a flood of them
            # would keep the loop from doing anything else.
            await asyncio.sleep(0)

    async def _receive(self) -> Mapping[str, Any]:
        if not self._channel:
            async with asyncio.timeout(settings.ANNOUNCE_TIMEOUT_SECONDS):
                self._channel = await self._layer.new_channel()
            self._has_channel.set()
        message: Mapping[str, Any] = await self._layer.receive(self._channel)
        return message

    # -- membership of the groups

    async def _watch(self) -> None:
        """See whether what is sent comes, or connect anew; try again what has failed.

        Each topic's membership is renewed every `GROUP_REFRESH_SECONDS`, and all are joined anew
        after a failure.
        """
        is_lost = False
        while True:
            interval = RETRY_SECONDS if is_lost else settings.HEAD_CHECK_SECONDS
            await asyncio.sleep(interval)
            if not await self._call("does not bring what is sent", self._echo):
                await self._reconnect()
                is_lost = True
                continue
            self.note_success()
            if is_lost:
                is_lost = False
                self._rejoin(self._joined)
            # Not all at once: 20,000 would keep the layer busy for seconds.
            count = settings.GROUP_REFRESH_SECONDS / settings.HEAD_CHECK_SECONDS
            for topic in self._turns.next(count):
                self._change_membership(topic)
            while self._failed:
                self._change_membership(self._failed.pop())

    async def _echo(self) -> None:
        """Send to this process's own channel, and wait until that or anything else has come."""
        # A connection may be silent for ever and no call fail: to subscribe only writes.
        await self._has_channel.wait()
        self._has_heard.clear()
        with suppress(ChannelFull):  # of messages that are about to come
            await self._layer.send(self._channel, {"type": ECHO_TYPE})
        await self._has_heard.wait()

    async def _reconnect(self) -> None:
        await cancel_and_wait(self._listening)
        await self._call("can't be closed", close_connections, self._layer)
        self._listening = spawn(self._listen())

    def _rejoin(self, topics: Iterable[str]) -> None:
        """Join groups anew: perhaps the layer has forgotten us."""
        for topic in topics:
            self._joined[topic] = False
            self._change_membership(topic)

    def _change_membership(self, topic: str) -> None:
        """Make the groups agree with what is wanted, in one task so that the last word counts."""
        self._changed[topic] = None
        if self._membership is None or self._membership.done():
            self._membership = spawn(self._update_memberships())

    async def _update_memberships(self) -> None:
        try:
            await self._has_channel.wait()
            # What the bus noted before tells little: while it runs, a call that works is no sign.
            works = True
            while self._changed and (self.is_running or works):
                topics = list(islice(self._changed, MEMBERSHIP_BATCH))
                for topic in topics:
                    del self._changed[topic]
                self._failed.update(topics)  # until it has succeeded: this may be cancelled
                works = all(await asyncio.gather(*map(self._update_membership, topics)))
        finally:
            self._membership = None

    async def _update_membership(self, topic: str) -> bool:
        was_joined = self._joined.get(topic)  # None: it is to be left
        change = self._layer.group_discard if was_joined is None else self._layer.group_add
        if not await self._call("takes no group changes", change, topic, self._channel):
            if self._joined.get(topic):  # a renewal: perhaps we are no member any more
                self._joined[topic] = False
            return False
        self._failed.discard(topic)
        if was_joined is False and topic in self._joined:
            self._joined[topic] = True
            self._on_message(topic, MISSED)
        return True

    # -- time limits and health

    async def _call(
        self, failure: str, call: Callable[..., Awaitable[None]], *arguments: Any
    ) -> bool:
        try:
            async with asyncio.timeout(settings.ANNOUNCE_TIMEOUT_SECONDS):
                await call(*arguments)
        except Exception as error:
            self.note_failure(failure, error)
            return False
        return True
