"""`manage.py createtoken USERNAME`: make an access token and print it."""

from typing import Any, Final

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from realtime.access.tokens import create_token, is_active, rotate_token, valid_tokens

MAX_EXPIRES_IN: Final = 100 * 366 * 86_400  # a century; dates end in the year 9999


class Command(BaseCommand):
    """Print the token alone on the last line of stdout; it can't be shown again."""

    help = "Make an access token for a user, or for a service, and print it, once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", nargs="?", type=utf8, help="whose; with --service nobody's")
        parser.add_argument("--name", type=utf8, default="", help="what the token is for")
        parser.add_argument(
            "--service",
            type=utf8,
            metavar="NAME",
            help="without a user: the scopes say what it may",
        )
        parser.add_argument(
            "--rotate",
            type=utf8,
            metavar="NAME",
            help="make a token in the place of the one of this name, which goes on for "
            "TOKEN_GRACE_SECONDS; with a username it is that user's",
        )
        parser.add_argument(
            "--scope",
            action="append",
            default=[],
            help="as publish:room.* or read:orders.*, several times; default: all its user may",
        )
        parser.add_argument(
            "--expires-in", type=float, metavar="SECONDS", help="default: it does not expire"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        username, service, expires_in = (options[k] for k in ("username", "service", "expires_in"))
        if options["rotate"] is not None:
            if service is not None or options["name"] or options["scope"]:
                raise CommandError("--rotate keeps name and scopes: leave the other options out.")
            _check_expiry(expires_in)
            self.stdout.write(_rotated(username, options["rotate"], expires_in))
            return
        if (username is None) == (service is None):
            raise CommandError("Give a username, or --service NAME for a token without a user.")
        if service is not None and options["name"]:
            raise CommandError("--service gives the token its name: leave --name out.")
        _check_expiry(expires_in)
        name, scopes = options["name"] if service is None else service, " ".join(options["scope"])
        if len(name) > 100:
            raise CommandError("--name has at most 100 characters.")
        user = None if username is None else _active_user(username)
        try:
            token, _ = create_token(user, name=name, expires_in=expires_in, scopes=scopes)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        self.stdout.write(token)


def utf8(argument: str) -> str:
    """Return an argument; raise ValueError for one that no database can take.

    argparse names it with this function's name.
    """
    argument.encode()  # fails for what Python makes of other bytes
    return argument


def _check_expiry(expires_in: float | None) -> None:
    if expires_in is not None and not 0 < expires_in <= MAX_EXPIRES_IN:
        raise CommandError(f"--expires-in is above zero and at most {MAX_EXPIRES_IN} seconds.")


def _rotated(username: str | None, name: str, expires_in: float | None) -> str:
    rows = valid_tokens().filter(name=name, rotated=None).select_related("user")
    if username is not None:
        rows = rows.filter(user=_active_user(username))
    found = list(rows[:2])
    if not found:
        raise CommandError(f"No token that is good, and was not rotated, is named {name!r}.")
    if len(found) > 1:
        raise CommandError(
            f"Several tokens are named {name!r}: give the username, or use the admin."
        )
    try:
        return rotate_token(found[0], expires_in=expires_in)[0]
    except ValidationError as error:
        raise CommandError(" ".join(error.messages)) from None


def _active_user(username: str) -> Any:
    User = get_user_model()
    try:
        user = User._default_manager.get_by_natural_key(username)
    except User.DoesNotExist:
        raise CommandError(f"There is no user {username!r}.") from None
    if not is_active(user):
        raise CommandError(f"{username!r} is not active; a token would be refused.")
    return user
