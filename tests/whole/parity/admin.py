"""Users and items of our site, by the same commands as the other contestants have.

`python -m tests.whole.parity.admin create USERNAME [--staff]` prints
`{"id", "username", "token", "session"}`; `deactivate USERNAME`; `items COUNT`.
"""

import argparse
import json
import sys
from typing import Any

import django


def create(username: str, staff: bool) -> dict[str, Any]:
    """Make a user, with a token and a session."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import Permission, User
    from django.contrib.sessions.backends.db import SessionStore

    from realtime.access.tokens import create_token

    user = User.objects.create(username=username, is_staff=staff, password="!")
    if staff:
        codenames = ["view_event", "add_event"]
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    return {
        "id": user.pk,
        "username": username,
        "token": create_token(user)[0],
        "session": session.session_key,
    }


def deactivate(username: str) -> None:
    """Untick "active", as the Django admin does it."""
    from django.contrib.auth.models import User

    user = User.objects.get(username=username)
    user.is_active = False
    user.save()


def items(count: int) -> None:
    """Fill the shop up to `count` items."""
    from project.demo.samples import make_items

    make_items(count)


def main() -> None:
    """Do what the command line says, in a database with its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("create")
    command.add_argument("username")
    command.add_argument("--staff", action="store_true")
    commands.add_parser("deactivate").add_argument("username")
    commands.add_parser("items").add_argument("count", type=int)
    options = parser.parse_args()
    django.setup()
    from django.core.management import call_command

    if options.command == "create":
        call_command("migrate", verbosity=0)
        sys.stdout.write(json.dumps(create(options.username, options.staff)) + "\n")
    elif options.command == "deactivate":
        deactivate(options.username)
    else:
        call_command("migrate", verbosity=0)
        items(options.count)


if __name__ == "__main__":
    main()
