"""`manage.py runserver`: Daphne's, with this server class."""

import os
from functools import partial
from typing import Any

from daphne.management.commands.runserver import Command as DaphneRunserver
from django.core.management.base import CommandParser

from realtime.apps import on_startup
from realtime.server.limits import ENVIRONMENT_PREFIX, from_environment
from realtime.server.option_types import SECONDS
from realtime.server.server import Server


class Command(DaphneRunserver):
    """Daphne's `runserver`, so that development behaves like production.

    What blocks the event loop is logged.
    """

    server_cls: Any = Server

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--blocking-seconds",
            type=SECONDS,
            default=os.environ.get(ENVIRONMENT_PREFIX + "BLOCKING_SECONDS", "0.1"),
            metavar="SECONDS",
            help="what holds the event loop for longer is logged with its stack; 0: not looked for "
            "(default: 0.1)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        limits = from_environment(blocking_seconds=options["blocking_seconds"])
        self.server_cls = partial(Server, limits=limits, on_startup=[on_startup])
        super().handle(*args, **options)
