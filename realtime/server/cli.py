"""Daphne's command line with this server, and the two pipes a supervisor talks through."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

from realtime.server.server import Server  # first: it installs the reactor

from daphne.cli import CommandLineInterface as DaphneCommandLine  # isort: skip


class CommandLineInterface(DaphneCommandLine):
    """Every option of `daphne`, and `--ready-fd` and `--parent-fd` for a supervisor."""

    server_class: Callable[..., Server] = Server

    def __init__(self) -> None:
        super().__init__()
        self.parser.prog = "python -m realtime.server"
        self.parser.add_argument(
            "--ready-fd",
            type=int,
            default=None,
            help="Write one byte to this file descriptor once the server accepts connections",
        )
        self.parser.add_argument(
            "--parent-fd",
            type=int,
            default=None,
            help="Stop gracefully when this pipe's other end is closed",
        )

    def run(self, args: list[str]) -> None:
        """Parse `args` and serve until stopped."""
        parsed, _ = self.parser.parse_known_args(args)
        self.server_class = self._bound_server_class(parsed)
        super().run(args)

    def _bound_server_class(self, options: Any) -> Callable[..., Server]:
        # Daphne's run() builds the server from its own options only; ours are bound here.
        def build(**kwargs: Any) -> Server:
            return Server(ready_callable=lambda: self._ready(options), **kwargs)

        return build

    def _ready(self, options: Any) -> None:
        loop = asyncio.get_event_loop()
        if options.ready_fd is not None:
            loop.call_soon(_tell, options.ready_fd)
        if options.parent_fd is not None:
            loop.add_reader(options.parent_fd, self._parent_gone, options.parent_fd)

    def _parent_gone(self, fd: int) -> None:
        asyncio.get_event_loop().remove_reader(fd)
        self.server.stop()


def _tell(fd: int) -> None:
    try:
        os.write(fd, b"1")
    finally:
        os.close(fd)
