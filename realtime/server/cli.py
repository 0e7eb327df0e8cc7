"""Daphne's command line with this server, and the two pipes a supervisor talks through."""

import argparse
import asyncio
import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from realtime.server import limits, loop, memory
from realtime.server.access_log import AccessLog
from realtime.server.forwarded import networks
from realtime.server.server import Server  # it installs the reactor, so it comes before Daphne
from realtime.server.workers import BEAT, BEAT_SECONDS

from daphne.cli import CommandLineInterface as DaphneCommandLine  # isort: skip
from daphne.utils import import_by_path  # isort: skip

SHUT_SECONDS = 0.25
"""Seconds that the event loop gets to close the listening socket before that is done for it."""


class CommandLineInterface(DaphneCommandLine):
    """Every option of `daphne`, one for each of the server's limits.

    And `--on-startup`, and `--ready-fd` and `--parent-fd` for a supervisor.
    """

    server_class: Callable[..., Server] = Server

    def __init__(self) -> None:
        super().__init__()
        self.parser.prog = "python -m realtime.server"
        limits.add_arguments(self.parser)
        # A peer that is silent for two intervals is gone: it is pinged after one. As often as an
        # event stream has a comment: what is in front may cut what is silent for 20 s.
        self.parser.set_defaults(ping_interval=15, ping_timeout=15)
        self.parser.add_argument(
            "--ready-fd",
            type=int,
            default=None,
            help="Write one byte to this file descriptor once the server accepts connections, and "
            "one after the other as long as its event loop runs; a 0 where it gets no more memory",
        )
        self.parser.add_argument(
            "--parent-fd",
            type=int,
            default=None,
            help="Stop gracefully when this pipe's other end is closed",
        )
        self.parser.add_argument(
            "--shut-fd",
            action="store_true",
            help="Then also refuse connections to --fd for all processes that share it, even if "
            "the event loop is held",
        )
        self.parser.add_argument(
            "--trusted-proxies",
            type=networks,
            default=(),
            metavar="NETWORKS",
            help="With --proxy-headers: the proxies on the way, as 10.0.0.0/8,::1. Of others the "
            "headers don't count, and the client is the last address that is none of them. Left "
            "out: the peer is the one proxy",
        )
        self.parser.add_argument(
            "--on-startup",
            action="append",
            default=[],
            metavar="MODULE:FUNCTION",
            help="Call it with the server before that counts as ready; may be given several times",
        )

    def run(self, args: list[str]) -> None:
        """Parse `args` and serve until stopped."""
        parsed, _ = self.parser.parse_known_args(args)
        if parsed.ping_interval < 1 or parsed.ping_timeout < 0:
            self.parser.error("--ping-interval takes at least 1 s, --ping-timeout at least 0.")
        if parsed.ready_fd is not None:
            os.set_blocking(parsed.ready_fd, False)
            memory.note_errors(loop.of_reactor(), parsed.ready_fd)
        self.server_class = self._bound_server_class(parsed)
        super().run(args)

    def _bound_server_class(self, options: argparse.Namespace) -> Callable[..., Server]:
        # Daphne's run() builds the server from its own options only; ours are bound here.
        def build(**kwargs: Any) -> Server:
            log = kwargs.pop("action_logger")
            return Server(
                limits=limits.from_options(options),
                trusted_proxies=options.trusted_proxies,
                on_startup=[import_by_path(path) for path in options.on_startup],
                ready_callable=lambda: self._ready(options),
                action_logger=AccessLog(log.stream) if log else None,
                **kwargs,
            )

        return build

    def _ready(self, options: argparse.Namespace) -> None:
        running = loop.of_reactor()
        if options.ready_fd is not None:
            running.call_soon(_beat, running, options.ready_fd)
            running.call_soon(memory.watch, running, options.ready_fd)
            # In C, so that it works whatever the interpreter is doing.
            faulthandler.register(signal.SIGQUIT)
        if options.parent_fd is not None:
            arguments = (running, options.parent_fd, options.shut_fd)
            threading.Thread(None, self._await_parent, "parent", arguments, daemon=True).start()

    def _await_parent(self, loop: asyncio.AbstractEventLoop, fd: int, shuts: bool) -> None:
        # In a thread: a loop that is held must not keep the port from the next server.
        os.read(fd, 1)
        loop.call_soon_threadsafe(self.server.parent_ended)
        if shuts:
            time.sleep(SHUT_SECONDS)
            self.server.listener.shut()


def _beat(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    try:
        loop.call_later(BEAT_SECONDS, _beat, loop, fd)
        os.write(fd, BEAT)
    except OSError:
        # Nobody reads, or nobody is left that could. It is not closed: memory.py writes into it
        # too, and another file would get its number.
        pass
