"""The channel layer as hubs use it: within time limits, and without raising. The log says once that
it fails and once that it is back, not for each event."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from ..conf import settings

logger = logging.getLogger("realtime.hub")


Call: TypeAlias = Callable[..., Awaitable[None]]


class Layer:
    """A channel layer, and the one channel on which a hub is reached."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._has_channel = asyncio.Event()
        self.channel = ""  # empty until the layer has given one
        self.is_down = False

    @property
    def is_away(self) -> bool:
        """Whether it fails, or has not answered yet."""
        return self.is_down or not self.channel

    async def ready(self) -> None:
        """Wait until there is a channel, which `receive` asks for."""
        await self._has_channel.wait()

    async def receive(self) -> Mapping[str, Any]:
        """The next message; raises what the layer raises."""
        if not self.channel:
            self.channel = await self._layer.new_channel()
            self._has_channel.set()
        message: Mapping[str, Any] = await self._layer.receive(self.channel)
        return message

    async def join(self, group: str) -> bool:
        """Hear what is sent to the group; whether the layer has taken it."""
        return await self._do("takes no group changes", self._layer.group_add, group, self.channel)

    async def leave(self, group: str) -> bool:
        """Hear it no more; whether the layer has taken it."""
        discard = self._layer.group_discard
        return await self._do("takes no group changes", discard, group, self.channel)

    async def send(self, group: str, message: Mapping[str, Any]) -> bool:
        """Send to all that have joined; whether the layer has taken it."""
        send = self._layer.group_send
        return await self._do("takes no announcements", send, group, message)

    async def _do(self, failure: str, call: Call, *arguments: Any) -> bool:
        try:
            async with asyncio.timeout(settings.ANNOUNCE_TIMEOUT_SECONDS):
                await call(*arguments)
        except Exception as error:
            self.failed(failure, error)
            return False
        if self.is_down:
            self.is_down = False
            logger.warning("The channel layer works again.")
        return True

    def failed(self, what: str, error: Exception) -> None:
        """Take note of a failure."""
        if not self.is_down:
            self.is_down = True
            logger.warning(
                "The channel layer %s (%s: %s); other processes find events in the log meanwhile.",
                what,
                type(error).__name__,
                error,
            )
