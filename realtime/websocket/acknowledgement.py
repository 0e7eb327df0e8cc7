"""What a client is told of the event that it has published over its socket."""

from collections.abc import Sequence
from typing import Any

from ..delivery.announce import Announcement
from ..events.event import Event
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
        self._is_over = False

    def __call__(self, events: Sequence[Event]) -> None:
        lane = self._socket.text_lane
        if lane is None or self._is_over:
            super().__call__(events)
            return
        lane.cork()
        try:
            super().__call__(events)
            self._is_sent = self._socket.try_send_text(self._text(events[0]))
        finally:
            lane.uncork()

    def give_up(self) -> None:
        """Announce what is stored from now on, and answer nothing: the handler has ended."""
        self._is_over = True

    async def send(self, event: Event) -> None:
        """Send the answer, unless it has gone out with the event; wait while the client lags."""
        if not self._is_sent:
            await self._socket.send_text(self._text(event))

    def _text(self, event: Event) -> str:
        return published_text(event.id, self._ref)
