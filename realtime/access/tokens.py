"""Access tokens: made once, kept as a digest, and looked up many at a time."""

import secrets
from collections.abc import Sequence, Set
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import DatabaseError, router, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..conf import settings
from ..exceptions import NotIdentified
from ..models import AccessToken
from ..utils.primary import primary_rows
from ..utils.sqlite import wait_at_most
from ..utils.threads import DATABASE
from .identity import Identity, digest
from .permissions import User
from .scopes import with_scopes
from .service_user import ServiceUser

TOKEN_PREFIX: Final = "rt_"  # lets secret scanners find a token that was committed by mistake
REFUSAL: Final = (
    "The access token is unknown, expired or revoked: make a new one (manage.py createtoken, or "
    "the admin)."
)
BUSY_MS: Final = 250  # to wait for another writer of SQLite

NOT_ROTATED: Final = _("“%(token)s” is no good any more, or was rotated before: make a new token.")


def create_token(
    user: Any, *, name: str = "", expires_in: float | None = None, scopes: str = ""
) -> tuple[str, AccessToken]:
    """Make an access token; `expires_in` is in seconds. The text can't be had again.

    Without a user it is a service's, by its name, and needs scopes. Raises `ValidationError`.
    """
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    expires = None if expires_in is None else timezone.now() + timedelta(seconds=expires_in)
    row = AccessToken.objects.create(
        user=user, name=name, digest=digest(token), expires=expires, scopes=scopes
    )
    return token, row


def rotate_token(row: AccessToken, *, expires_in: float | None = None) -> tuple[str, AccessToken]:
    """Make a token in the place of `row`, which ends after `TOKEN_GRACE_SECONDS`.

    It has the same user, name and scopes, and lives as long as that one was made for, or
    `expires_in` seconds. Raises `ValidationError` for one that is no good, or was rotated before.
    """
    now = timezone.now()
    alias = router.db_for_write(AccessToken)
    with transaction.atomic(using=alias):
        # The update decides: of two who rotate the same, one finds it done.
        if not valid_tokens().filter(pk=row.pk, rotated=None).update(rotated=now):
            raise ValidationError(NOT_ROTATED, params={"token": row})
        row.refresh_from_db(using=alias)  # it may have been narrowed since `row` was loaded
        user = users_by_key({row.user_id}).get(row.user_id)
        if row.user_id is not None and (user is None or not is_active(user)):
            raise ValidationError(NOT_ROTATED, params={"token": row})
        if expires_in is None and row.expires is not None:
            expires_in = (row.expires - row.created).total_seconds()
        made = create_token(user, name=row.name, scopes=row.scopes, expires_in=expires_in)
        end = now + timedelta(seconds=settings.TOKEN_GRACE_SECONDS)
        row.rotated, row.expires = now, end if row.expires is None else min(row.expires, end)
        row.save(update_fields=["rotated", "expires"])  # the signal tells live connections
    return made


def is_active(user: Any) -> bool:
    """Return whether a user is active, as Django decides it: without the attribute, yes."""
    return bool(getattr(user, "is_active", True))


def valid_tokens() -> QuerySet[AccessToken]:
    """Return the tokens that are neither expired nor revoked."""
    alive = Q(expires=None) | Q(expires__gt=timezone.now())
    return primary_rows(AccessToken).filter(alive, revoked=None)


def users_by_key(keys: Set[Any]) -> dict[Any, Any]:
    """Return the users with these keys, by key, without those that are gone.

    None, the key of a service, has None.
    """
    # One who was deleted just now is not in it, and makes no token a service's. Nor is one whom the
    # site's default manager hides: Django finds nobody for the session of such a user either.
    return {None: None, **primary_rows(get_user_model()).in_bulk(keys - {None})}


def user_of_token(user: Any, name: str, scopes: str) -> User | None:
    """Return the user or the service that a token stands for; None for an inactive user."""
    if user is None:
        return with_scopes(ServiceUser(name), scopes)
    return with_scopes(user, scopes) if is_active(user) else None


async def find_tokens(tokens: Sequence[str]) -> list[Identity | BaseException]:
    """Return the identity of each token, or `NotIdentified`; update when it was last used."""
    return await DATABASE.run_twice(_find_tokens, tokens)


def _find_tokens(tokens: Sequence[str]) -> list[Identity | BaseException]:
    digests = [digest(token) for token in tokens]
    columns = ("digest", "pk", "user_id", "name", "scopes", "expires", "last_used")
    rows = valid_tokens().filter(digest__in=digests).values_list(*columns)
    found = {each: rest for each, *rest in rows}
    users = users_by_key({user_id for _pk, user_id, *_rest in found.values()})
    now = timezone.now()
    before = now - timedelta(seconds=settings.TOKEN_TOUCH_SECONDS)
    answers: list[Identity | BaseException] = []
    stale: list[int] = []
    for each in digests:
        user, row = None, found.get(each)
        if row is not None and row[1] in users:
            pk, user_id, name, scopes, expires, last_used = row
            user = user_of_token(users[user_id], name, scopes)
        if user is None:
            answers.append(NotIdentified(REFUSAL))
            continue
        answers.append(Identity(user, "token", str(pk), expires))
        if last_used is None or last_used < before:
            stale.append(pk)
    if stale:
        _touch(stale, now)
    return answers


def _touch(keys: Sequence[int], now: datetime) -> None:
    """Write when tokens were used; where that can't be done now, the next use comes soon."""
    alias = router.db_for_write(AccessToken)
    with suppress(DatabaseError), wait_at_most(alias, BUSY_MS):
        AccessToken.objects.using(alias).filter(pk__in=keys).update(last_used=now)
