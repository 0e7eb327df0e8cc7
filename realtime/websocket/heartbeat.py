"""The application's heartbeat: a ping that a browser can see, and the end of a silent client."""

import asyncio

from ..conf import settings
from ..utils.aio import spawn
from .messages import CLOSE_ERROR, PING
from .socket import Socket


class Heartbeat:
    """Send a ping every `HEARTBEAT_SECONDS`; close a client that answered once, then is silent.

    The server's protocol pings alone (RFC 6455, section 5.5.2) watch one that never answers.
    """

    __slots__ = ("_has_answered", "_loop", "_pinging", "_silent", "_socket", "_timer")

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self._has_answered = False
        # Pings since something has come. No time: nobody was asked while the loop stood still.
        self._silent = 0
        self._pinging: asyncio.Future[None] | None = None
        self._timer = self._loop.call_later(settings.HEARTBEAT_SECONDS, self._beat)

    def hear(self) -> None:
        """Take note that something has come from the client."""
        self._silent = 0

    def answer(self) -> None:
        """Take note that the client answers pings."""
        self._has_answered = True

    def stop(self) -> None:
        """Send no more pings."""
        self._timer.cancel()

    def _beat(self) -> None:
        if self._socket.is_handling:
            self._silent = 0  # an answer may have come: it is not read meanwhile
        if self._has_answered and self._silent >= 2:
            spawn(self._socket.close(CLOSE_ERROR, "No answer to two heartbeats; reconnect."))
            return
        self._silent += 1
        self._timer = self._loop.call_later(settings.HEARTBEAT_SECONDS, self._beat)
        if self._pinging is None or self._pinging.done():  # it waits while the peer does not read
            self._pinging = spawn(self._socket.send_text(PING))
