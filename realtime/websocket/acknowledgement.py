"""What a client is told of the event that it has published over its socket."""

from collections.abc import Sequence
from typing import Any

from ..delivery.announce import Announcement
from ..events.event import Event
from ..server.extensions import fastlane
from .messages import published_text
from .socket import Socket


class Acknowledgement(Announcement):
    """Announce an event once it is stored, and answer its publisher with the id.

    Where the publisher reads the topic too, and its socket takes it, the event and the answer are
    one system call.
    """

    via = "websocket"

    def __init__(self, socket: Socket, ref: Any) -> None:
        self._socket = socket
        self._ref = ref
        self._is_sent = False

    def __call__(self, events: Sequence[Event]) -> None:
        lane = fastlane(self._socket.scope)
        if lane is None:
            super().__call__(events)
            return
        lane.cork()
        try:
            super().__call__(events)
            self._is_sent = self._socket.try_send_text(self._text(events[0]))
        finally:
            lane.uncork()

    async def send(self, event: Event) -> None:
        """Send the answer, unless it has gone out with the event; wait while the client lags."""
        if not self._is_sent:
            await self._socket.send_text(self._text(event))

    def _text(self, event: Event) -> str:
        return published_text(event.id, self._ref)
