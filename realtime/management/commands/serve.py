"""`manage.py serve`: the production server."""

import os
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from realtime.metrics import collect
from realtime.metrics.loopback_port import HOST, LoopbackPort
from realtime.server.option_types import PORT, SECONDS
from realtime.server.supervisor import Supervisor, SupervisorError

REDIS_URL: Final = "REDIS_URL"  # environment variable of the site's settings
CHECKS: Final = ("--on-startup", "realtime.apps:require_no_errors")  # options of a worker
ON_STARTUP: Final = ("--on-startup", "realtime.apps:on_startup")
LAYERS_WITH_REDIS: Final = ("", "redis", "redis-pubsub")  # values of CHANNEL_LAYER, another one


class Command(BaseCommand):
    """Bind, start the workers, keep them running."""

    help = "Serve with Daphne's server class and N workers behind one listening socket."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
        parser.add_argument("--uds", metavar="PATH", help="a Unix socket instead of host and port")
        parser.add_argument("--workers", type=int, default=1, metavar="N")
        parser.add_argument(
            "--grace",
            type=SECONDS,
            default=30.0,
            metavar="SECONDS",
            help="how long a worker may drain after SIGTERM before it is killed (default: 30)",
        )
        parser.add_argument(
            "--drain-delay",
            type=SECONDS,
            default=os.environ.get("REALTIME_DRAIN_DELAY") or "0",  # which has to be a number, too
            metavar="SECONDS",
            help="after SIGTERM serve as before for so long while /readyz says 503 (default: 0)",
        )
        parser.add_argument(
            "--start-timeout",
            type=SECONDS,
            default=60.0,
            metavar="SECONDS",
            help="a worker that is not ready after so long is killed, and counts as one that could "
            "not start (default: 60; 0: never)",
        )
        parser.add_argument(
            "--worker-timeout",
            type=SECONDS,
            default=15.0,
            metavar="SECONDS",
            help="a worker whose event loop is held for so long is replaced, and what held it is "
            "in the log (default: 15; 0: never)",
        )
        parser.add_argument(
            "--memory-grace",
            type=SECONDS,
            default=10.0,
            metavar="SECONDS",
            help="a worker that gets no more memory is replaced, and has so long to drain "
            "(default: 10; 0: it stays)",
        )
        parser.add_argument(
            "--metrics-port",
            type=PORT,
            metavar="PORT",
            help="answer /metrics, without permission, on this port of 127.0.0.1 too; 0 takes a "
            "free one",
        )
        parser.add_argument(
            "options",
            nargs="*",
            metavar="OPTION",
            help="after --, options of the workers, such as --proxy-headers; all of them: "
            "python -m realtime.server --help",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            _ = settings.SECRET_KEY
        except ImproperlyConfigured:
            hint = "Set SECRET_KEY: sessions and CSRF tokens are signed with it."
            raise CommandError(hint) from None
        port = self._metrics_port(options["metrics_port"])
        checks = () if options["skip_checks"] else CHECKS
        try:
            supervisor = Supervisor(
                application_path(),
                host=options["host"],
                port=options["port"],
                uds=options["uds"],
                workers=options["workers"],
                grace=options["grace"],
                drain_delay=options["drain_delay"],
                start_timeout=options["start_timeout"],
                worker_timeout=options["worker_timeout"],
                memory_grace=options["memory_grace"],
                options=[*checks, *ON_STARTUP, *root_path(), *options["options"]],
                embedded_redis=embedded_redis(options["workers"]),
                beside=None if port is None else port.serve,
            )
            supervisor.bind()
            supervisor.run()
        except SupervisorError as error:
            raise CommandError(str(error)) from error

    def _metrics_port(self, number: int | None) -> LoopbackPort | None:
        shared = collect.files()  # in which this process counts the workers that it restarts
        if number is None:
            return None
        if shared is None:
            raise CommandError("--metrics-port needs METRICS_DIR, a folder that can be written.")
        try:
            port = LoopbackPort(number)
        except OSError as error:
            raise CommandError(f"--metrics-port {number}: {error.strerror}.") from error
        self.stdout.write(f"Metrics on http://{HOST}:{port.port}/metrics\n")
        return port


def application_path() -> str:
    """Return ASGI_APPLICATION as `module:attribute`; raise CommandError where it is not set."""
    dotted = getattr(settings, "ASGI_APPLICATION", None)
    if not dotted:
        raise CommandError("Set ASGI_APPLICATION to the application to serve.")
    module, _, attribute = dotted.rpartition(".")
    return f"{module}:{attribute}"


def root_path() -> tuple[str, ...]:
    """Return the worker's option for a site below the path FORCE_SCRIPT_NAME; else none."""
    return ("--root-path", settings.FORCE_SCRIPT_NAME) if settings.FORCE_SCRIPT_NAME else ()


def embedded_redis(workers: int) -> str | None:
    """Return REDIS_URL where so many workers need a Redis and the environment names none."""
    is_layer = getattr(settings, "REALTIME", {}).get("BUS", "channels") == "channels"
    is_wanted = is_layer and os.environ.get("CHANNEL_LAYER", "") in LAYERS_WITH_REDIS
    return REDIS_URL if workers > 1 and is_wanted and not os.environ.get(REDIS_URL) else None
