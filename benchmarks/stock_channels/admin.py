"""Users and items by hand: `python -m benchmarks.stock_channels.admin create alice [--staff]`."""

import argparse
import json
import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import django
from django.core.management import call_command

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.stock_channels.settings"
django.setup()

from django.contrib.auth import (  # noqa: E402
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
)
from django.contrib.auth.models import User  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402

from .models import Item  # noqa: E402
from .tokens import make_token  # noqa: E402

BATCH = 5_000
FIRST_CREATED = datetime(2025, 1, 1, tzinfo=UTC)
ADJECTIVES = ("Small", "Quiet", "Folding", "Copper", "Second-hand", "Blue", "Heavy", "Café")
NOUNS = ("lamp", "teapot", "notebook", "bicycle bell", "radio", "umbrella", "compass")


def create(username: str, staff: bool) -> dict[str, Any]:
    """Make a user with a token and a session; one who exists gets new ones."""
    values = {"is_staff": staff, "is_active": True}
    user, _ = User.objects.update_or_create(username=username, defaults=values)
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    return {
        "id": user.pk,
        "username": username,
        "token": make_token(user),
        "session": session.session_key,
    }


def deactivate(username: str) -> None:
    """Let the user sign in no more."""
    if not User.objects.filter(username=username).update(is_active=False):
        raise SystemExit(f"There is no user {username!r}.")


def items(count: int) -> None:
    """Fill the shop up to `count` items."""
    for start in range(Item.objects.count(), count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        Item.objects.bulk_create([item(number) for number in numbers])


def item(number: int) -> Item:
    """The item with this number, the same as the other contestants'."""
    adjective = ADJECTIVES[number % len(ADJECTIVES)]
    noun = NOUNS[number // len(ADJECTIVES) % len(NOUNS)]
    return Item(
        name=f"{adjective} {noun} no. {number + 1}",
        price=Decimal(99 + number * 7_919 % 99_900) / 100,
        created=FIRST_CREATED + timedelta(minutes=number),
    )


def main(options: argparse.Namespace) -> None:
    """Do what is asked, in a database that has its tables."""
    call_command("migrate", run_syncdb=True, verbosity=0)
    if options.command == "create":
        print(json.dumps(create(options.username, options.staff)))
    elif options.command == "deactivate":
        deactivate(options.username)
    else:
        items(options.count)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("create", help="prints the user and how to sign in, as JSON")
    command.add_argument("username")
    command.add_argument("--staff", action="store_true")
    commands.add_parser("deactivate").add_argument("username")
    commands.add_parser("items").add_argument("count", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main(parse())
