"""A subscription written to a socket."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ..access.permissions import may
from ..delivery.synced import Sink
from ..delivery.topic_subscriber import Reset, Started
from ..events.position import Position
from ..exceptions import NotAllowed
from ..presence.member_subscription import MemberSubscription
from ..server.extensions import FastLane
from ..utils.aio import cancel_and_wait, spawn
from .messages import CLOSE_ERROR, encode_event, encode_event_with_meta
from .socket import Socket

logger = logging.getLogger("realtime.consumers")


class TopicWriter:
    """Write the events of a subscription to a socket, as they come."""

    __slots__ = ("_socket", "_task", "subscription")

    def __init__(self, socket: Socket) -> None:
        self.subscription = MemberSubscription(socket.identity)
        self._socket = socket
        self._task: asyncio.Task[None] | None = None

    def start(self, lane: FastLane | None) -> None:
        """Write from now on, first what has come since the subscription began.

        `lane` takes events in their standard form: give None for a socket whose events look
        otherwise.
        """
        subscription = self.subscription
        if subscription.on_ready is None:
            encode = encode_event_with_meta if self._socket.has_meta else encode_event
            subscription.sink = Sink(encode, lane) if lane is not None else None
            subscription.on_ready = self._write_soon
            self._write_soon()

    async def add(
        self,
        topic: str,
        after: Position | None,
        on_start: Callable[[Started], Awaitable[None]] | None,
        has_presence: bool,
    ) -> Started:
        """Write a topic's events too and, if wanted, who is there."""
        return await self.subscription.add(topic, after, on_start, is_watched=has_presence)

    async def recheck(self) -> None:
        """Write no more of topics that the user may not read any more, nor who is there."""
        # All are removed before any is told of: sending waits for a peer that does not read.
        socket, subscription, lost = self._socket, self.subscription, []
        for topic in subscription.topics:
            if not await may(socket.identity.user, topic, "read"):
                subscription.remove(topic)
                lost.append(topic)
        unseen = await subscription.lost_presence(socket.identity.user)
        if socket.is_connecting and (lost or unseen):
            await socket.fail()  # it can't be told yet: its client has to come back
            return
        for topic in lost:
            await socket.lost_permission(topic)
        for topic in unseen:
            detail = f"You may not see who is on {topic!r} any more."
            await socket.send_error(NotAllowed.code, detail)

    async def close(self) -> None:
        """Stop, also in the middle of a message that the peer does not read."""
        self.subscription.close()
        if self._task is not None:
            await cancel_and_wait(self._task)
        self.subscription.on_ready = None  # which refers to this

    def _write_soon(self) -> None:
        # A task only while there is something to write: an idle socket has none.
        if self._task is None and not self.subscription.is_closed:
            self._task = spawn(self._write())

    async def _write(self) -> None:
        try:
            is_done = False
            while not is_done:
                async for item in self.subscription.ready():
                    if isinstance(item, Reset):
                        await self._socket.reset(item)
                    else:
                        await self._socket.event(item)
                is_done = True  # unless more comes while these are written
                for notice in self.subscription.notices():
                    is_done = False
                    await self._socket.presence(notice)
        except Exception:
            logger.exception("A subscription failed; its socket is closed")
            await self._socket.close(CLOSE_ERROR, "The server failed to read the log; reconnect.")
        finally:
            self._task = None
