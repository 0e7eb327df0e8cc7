"""Daphne's server class, with what Daphne leaves out."""

# ruff: noqa: E402 - the reactor has to be installed before Twisted is imported
from realtime.server import loop

loop.install()

import socket
from typing import Any

from daphne.server import Server as DaphneServer

LISTEN_BACKLOG = 4096
"""Connections the kernel queues before they are accepted. Twisted's 50 makes a storm of
connections wait for SYN retries of 1 s and 3 s."""


class Server(DaphneServer):
    """Daphne's `Server`."""

    def listen_success(self, port: Any) -> None:
        """Called by Daphne when an endpoint listens: raise its backlog."""
        listener = getattr(port, "socket", None)
        if isinstance(listener, socket.socket):
            listener.listen(LISTEN_BACKLOG)  # listen(2) again only changes the backlog
        super().listen_success(port)
