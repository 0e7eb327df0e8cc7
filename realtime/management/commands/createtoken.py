"""`manage.py createtoken USERNAME`: make an access token and print it."""

from typing import Any, Final

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from realtime.access.tokens import create_token, is_active

MAX_EXPIRES_IN: Final = 100 * 366 * 86_400  # a century; dates end in the year 9999


class Command(BaseCommand):
    """Print the token alone on the last line of stdout; it can't be shown again."""

    help = "Make an access token for a user and print it, once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--name", default="", help="what the token is for")
        parser.add_argument(
            "--expires-in", type=float, metavar="SECONDS", help="default: it does not expire"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        User = get_user_model()
        username, expires_in = options["username"], options["expires_in"]
        if expires_in is not None and not 0 < expires_in <= MAX_EXPIRES_IN:
            raise CommandError(f"--expires-in is above zero and at most {MAX_EXPIRES_IN} seconds.")
        try:
            user = User._default_manager.get_by_natural_key(username)
        except User.DoesNotExist:
            raise CommandError(f"There is no user {username!r}.") from None
        if not is_active(user):
            raise CommandError(f"{username!r} is not active; a token would be refused.")
        if len(options["name"]) > 100:
            raise CommandError("--name has at most 100 characters.")
        token, _ = create_token(user, name=options["name"], expires_in=expires_in)
        self.stdout.write(token)
