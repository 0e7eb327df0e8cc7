"""An identity as it is now: its user, and what its token may and until when."""

from collections.abc import Sequence
from typing import Any

from ..models import AccessToken
from ..utils.threads import DATABASE
from .identity import ANONYMOUS, Identity
from .permissions import User
from .sessions import find_session
from .tokens import user_of_token, users_by_key, valid_tokens


def find_identity(source: Any, key: str) -> Identity | None:
    """Return the identity as it is now; None when it stands for nobody any more."""
    return find_identities([Identity(ANONYMOUS.user, source, key)])[0]


def find_identities(identities: Sequence[Identity]) -> list[Identity | None]:
    """Return each identity as it is now; those that rest on tokens by two statements."""
    of_tokens = _find_tokens([each.token_key for each in identities if each.token_key is not None])
    found: list[Identity | None] = []
    for each in identities:
        user: User | None = ANONYMOUS.user
        expires = None
        if each.token_key is not None:
            user, expires = of_tokens.get(each.token_key, (None, None))
        elif each.session_key is not None:
            user = find_session(each.session_key).user
            user = user if user.is_authenticated else None
        found.append(None if user is None else Identity(user, each.source, each.key, expires))
    return found


async def refresh(identities: list[Identity]) -> list[Identity | Exception | None]:
    """Return each identity as it is now.

    None if it stands for nobody any more, and the error where its look-up fails.

    Raises what the database raises while it does not answer: that says nothing of anybody.
    """
    try:
        return [*await DATABASE.run_twice(find_identities, identities)]
    except Exception as error:
        if len(identities) > 1:  # one that fails must not keep the others from being checked
            return [found for each in identities for found in await refresh([each])]
        await DATABASE.run_twice(AccessToken.objects.exists)
        return [error]


def _find_tokens(keys: Sequence[str]) -> dict[str, Any]:
    if not keys:
        return {}
    tokens = list(valid_tokens().filter(pk__in=keys))
    users = users_by_key({token.user_id for token in tokens})
    return {
        str(token.pk): (
            user_of_token(users[token.user_id], token.name, token.scopes),
            token.expires,
        )
        for token in tokens
        if token.user_id in users
    }
