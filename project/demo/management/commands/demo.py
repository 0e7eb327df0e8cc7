"""`manage.py demo`: from nothing to running."""

import os
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from project.demo.accounts import SUPERUSER, make_users
from project.demo.samples import make_files, make_items
from project.demo.secret import kept_secret_key
from project.loopback import is_loopback
from realtime.management.commands.serve import (
    CHECKS,
    ON_STARTUP,
    application_path,
    embedded_redis,
    root_path,
)
from realtime.server.supervisor import Supervisor, SupervisorError


class Command(BaseCommand):
    """Make what is missing, say how to sign in, serve.

    This process never uses SECRET_KEY or DEMO: settings were read before the command had a say.
    The workers do, and get them in their environment.
    """

    help = "Migrate, make demo users, items and files, and serve them. Safe to run again."
    requires_system_checks = []  # they would judge this process's settings, not the workers'

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
        parser.add_argument("--workers", type=int, default=1, metavar="N")
        parser.add_argument("--items", type=int, default=1000, metavar="N")

    def handle(self, *args: Any, **options: Any) -> None:
        is_public = not is_loopback(options["host"])
        if is_public:
            require_consent(options["host"])
        settings.DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret_key = os.environ.get("SECRET_KEY") or kept_secret_key(
            settings.DATA_DIR / "secret_key"
        )
        # One-click sign-in is for who sits at this machine.
        demo = {"SECRET_KEY": secret_key, "DEMO": "0" if is_public else "1"}
        try:
            supervisor = Supervisor(
                application_path(),
                host=options["host"],
                port=options["port"],
                workers=options["workers"],
                env={**os.environ, **demo},
                options=[*CHECKS, *ON_STARTUP, *root_path()],
                embedded_redis=embedded_redis(options["workers"]),
                on_ready=self.announce,
            )
            supervisor.bind()  # first: a port that is taken is no reason to touch the database
            self.prepare(secret_key, options["items"])
            supervisor.run()
        except SupervisorError as error:
            raise CommandError(str(error)) from error

    def prepare(self, secret_key: str, items: int) -> None:
        """Everything that has to be there before the first request."""
        self.say(f"Preparing the demo in {settings.DATA_DIR}")
        call_command("migrate", verbosity=0, interactive=False)
        self.passwords = make_users(secret_key)
        make_files(settings.FILES_DIR)
        make_items(items)

    def announce(self, supervisor: Supervisor) -> None:
        """Where it is, and how to get in."""
        plural = "" if supervisor.workers == 1 else "s"
        url = f"{supervisor.url}{settings.ROOT_PATH}"
        self.say(f"\nServing on {url} with {supervisor.workers} worker{plural}\n")
        self.say("  user    password")
        for name, password in self.passwords.items():
            note = "   superuser, see /admin/" if name == SUPERUSER else ""
            self.say(f"  {name:<7} {password or '(not made by the demo, left as it is)'}{note}")
        self.say(f"\n  files   {settings.FILES_DIR}\n\nCtrl-C stops it.")

    def say(self, text: str) -> None:
        """Print at once, also where the output is a pipe."""
        self.stdout.write(text)
        self.stdout.flush()


def require_consent(host: str) -> None:
    """A demo that others can reach has to be meant so."""
    if os.environ.get("DEMO_ALLOW_PUBLIC") != "1":
        raise CommandError(
            f"{host!r} can be reached from other machines, and the demo is made for this one: use "
            "--host 127.0.0.1, or set DEMO_ALLOW_PUBLIC=1 (one-click sign-in stays off then)."
        )
    if not os.environ.get("ALLOWED_HOSTS", "").strip(" ,"):
        raise CommandError(
            "With DEMO_ALLOW_PUBLIC=1, also set ALLOWED_HOSTS to the names and addresses, "
            "separated by commas, that the demo is reached by."
        )
