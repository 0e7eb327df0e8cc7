"""Access tokens: made once, kept as a digest, and looked up many at a time."""

import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet
from django.utils import timezone

from ..conf import settings
from ..exceptions import NotIdentified
from ..models import AccessToken
from ..utils.threads import DATABASE
from .identity import Identity, digest

TOKEN_PREFIX: Final = "rt_"  # lets secret scanners find a token that was committed by mistake


def create_token(
    user: Any, *, name: str = "", expires_in: float | None = None
) -> tuple[str, AccessToken]:
    """Make an access token; `expires_in` is in seconds. The text can't be had again."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    expires = None if expires_in is None else timezone.now() + timedelta(seconds=expires_in)
    row = AccessToken.objects.create(user=user, name=name, digest=digest(token), expires=expires)
    return token, row


def is_active(user: Any) -> bool:
    """Return what Django's own backend goes by: a user model need not have the attribute."""
    return bool(getattr(user, "is_active", True))


def valid_tokens() -> QuerySet[AccessToken]:
    """Return the tokens that are neither expired nor revoked."""
    alive = Q(expires=None) | Q(expires__gt=timezone.now())
    return AccessToken.objects.filter(alive, revoked=None)


async def find_tokens(tokens: Sequence[str]) -> list[Identity | BaseException]:
    """Return the identity of each token, or `NotIdentified`; update when it was last used."""
    return await DATABASE.run_twice(_find_tokens, tokens)


def _find_tokens(tokens: Sequence[str]) -> list[Identity | BaseException]:
    digests = [digest(token) for token in tokens]
    columns = ("digest", "pk", "last_used", "user_id")
    rows = valid_tokens().filter(digest__in=digests).values_list(*columns)
    found = {each: rest for each, *rest in rows}
    users = get_user_model()._base_manager.in_bulk({user_id for *_, user_id in found.values()})
    now = timezone.now()
    before = now - timedelta(seconds=settings.TOKEN_TOUCH_SECONDS)
    answers: list[Identity | BaseException] = []
    stale: list[int] = []
    for each in digests:
        pk, last_used, user_id = found.get(each, (0, None, None))
        user = users.get(user_id)
        if user is None or not is_active(user):
            refusal = "The access token is unknown, expired or revoked: make a new one "
            answers.append(NotIdentified(refusal + "(manage.py createtoken, or the admin)."))
            continue
        answers.append(Identity(user, "token", str(pk)))
        if last_used is None or last_used < before:
            stale.append(pk)
    if stale:
        AccessToken.objects.filter(pk__in=stale).update(last_used=now)
    return answers
