"""Fill a Django contestant's database: `python -m benchmarks.seed SETTINGS USERS ROWS`.

Prints one session cookie per user and what the staff shows, and one access token per user where
the site has them, as JSON. Makes rows where it has those.
"""

import json
import os
import secrets
import sys
from datetime import timedelta
from typing import Any


def main(settings: str, count: int, rows: int) -> None:
    """Migrate, make the users and the rows, print the credentials."""
    os.environ["DJANGO_SETTINGS_MODULE"] = settings
    import django
    from django.apps import apps
    from django.core.management import call_command

    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
    users = _make_users(count)
    credentials = {"session": _make_sessions(users)}
    staff = _make_staff()
    if apps.is_installed("realtime"):
        credentials["token"] = _make_tokens(users)
        credentials["staff"] = _make_tokens([staff])
    else:
        credentials["staff"] = _make_sessions([staff])
    if apps.is_installed("project.demo"):
        from project.demo.samples import make_items

        make_items(rows)
    elif apps.is_installed("benchmarks.stock_channels"):
        from benchmarks.stock_channels.admin import items

        items(rows)
    print(json.dumps(credentials))


def _make_users(count: int) -> list:
    from django.contrib.auth.models import User

    names = [f"user{number}" for number in range(count)]
    User.objects.bulk_create([User(username=name, password="!") for name in names])
    return list(User.objects.filter(username__in=names))


def _make_staff() -> Any:
    from django.contrib.auth.models import User

    return User.objects.create(username="staff", password="!", is_staff=True)


def _make_sessions(users: list) -> list[str]:
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.sessions.models import Session
    from django.utils import timezone

    expires = timezone.now() + timedelta(days=1)
    sessions = [
        Session(
            session_key=secrets.token_hex(16),
            expire_date=expires,
            session_data=SessionStore().encode(
                {
                    "_auth_user_id": str(user.pk),
                    "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
                    "_auth_user_hash": user.get_session_auth_hash(),
                }
            ),
        )
        for user in users
    ]
    Session.objects.bulk_create(sessions)
    return [f"Cookie: sessionid={session.session_key}" for session in sessions]


def _make_tokens(users: list) -> list[str]:
    from realtime.access.identity import digest
    from realtime.models import AccessToken

    tokens = [f"rt_{secrets.token_urlsafe(32)}" for _ in users]
    AccessToken.objects.bulk_create(
        AccessToken(user=user, digest=digest(token))
        for user, token in zip(users, tokens, strict=True)
    )
    return [f"Authorization: Bearer {token}" for token in tokens]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
