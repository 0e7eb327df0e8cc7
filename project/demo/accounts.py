"""The demo's users, their passwords, and who may sign in as one of them with a click."""

import base64
import hmac
from typing import Final

from django.conf import settings
from django.contrib.auth.hashers import PBKDF2PasswordHasher, check_password, identify_hasher
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.http.request import split_domain_port
from django.utils.crypto import get_random_string

from project.loopback import is_loopback

USERNAMES: Final = ("admin", "alice", "bob")
SUPERUSER: Final = "admin"
GROUP: Final = "demo users"  # marks the users that were made here: nobody else is touched


def password_of(username: str, secret_key: str) -> str:
    """A demo user's password: as secret as the key, and the same as long as the key is."""
    digest = hmac.digest(secret_key.encode(), f"demo password of {username}".encode(), "sha256")
    text = base64.b32encode(digest).decode().lower()
    return "-".join(text[start : start + 5] for start in range(0, 20, 5))  # 100 bits


@transaction.atomic
def make_users(secret_key: str) -> dict[str, str | None]:
    """Make the demo's users, or bring them back to their passwords; passwords by name.

    A user of that name whom the demo did not make is left alone, and its password is None.
    """
    group, _ = Group.objects.get_or_create(name=GROUP)
    passwords: dict[str, str | None] = {}
    for name in USERNAMES:
        is_admin = name == SUPERUSER
        user, is_new = User.objects.get_or_create(
            username=name, defaults={"is_staff": is_admin, "is_superuser": is_admin}
        )
        if not is_new and not user.groups.contains(group):
            passwords[name] = None
            continue
        password = passwords[name] = password_of(name, secret_key)
        if is_new or not check_password(password, user.password):
            # Nobody guesses 100 bits, also where a guess costs nothing; 0.2 s for each user would
            # be half of the time in which the demo starts.
            user.password = PBKDF2PasswordHasher().encode(password, get_random_string(22), 1)
            user.save()
        user.groups.add(group)
    return passwords


def strengthen(user: User) -> None:
    """Store the hash that Django would store at the user's first login by password.

    Sessions that were opened before would end then: they rest on the hash.
    """
    if identify_hasher(user.password).must_update(user.password):
        user.check_password(password_of(user.username, settings.SECRET_KEY))


def demo_users() -> QuerySet[User]:
    """Those whom `make_users` made."""
    return User.objects.filter(username__in=USERNAMES, groups__name=GROUP, is_active=True)


def one_click(request: HttpRequest) -> bool:
    """Whether this request may sign in without a password: the demo, seen from its own machine.

    The address is not enough: behind a proxy or a tunnel on this machine, everybody comes from
    127.0.0.1, but asks for another host.
    """
    host, _ = split_domain_port(request.get_host())
    return (
        settings.DEMO and is_loopback(host) and is_loopback(request.META.get("REMOTE_ADDR") or "")
    )
