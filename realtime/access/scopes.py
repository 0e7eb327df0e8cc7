"""Scopes: what a user may do at most with an access token. They are kept on the user object.

So code that is handed the user, as a consumer of a site's own, can't lose them on the way to
`require`.
"""

from copy import copy
from typing import Any, Final, TypeVar

from ..conf.token_scopes import scopes_allow
from ..exceptions import NotAllowed
from .service_user import ServiceUser

T = TypeVar("T")
_ATTRIBUTE: Final = "realtime_scopes"


def with_scopes(user: T, scopes: str) -> T:
    """Return the user of a token with these scopes; without any, as it is."""
    if not scopes:
        return user
    user = copy(user)  # another token of the same user has others
    setattr(user, _ATTRIBUTE, scopes)
    return user


def scopes_of(user: Any) -> str:
    """Return the scopes of the token that this user came with; empty: all that the user may."""
    scopes: str = getattr(user, _ATTRIBUTE, "")
    return scopes


def is_in_scope(user: Any, topic: str, action: str) -> bool:
    """Return whether the scopes allow it; without any, a user may do all, a service nothing."""
    scopes = scopes_of(user)
    return scopes_allow(scopes, topic, action) if scopes else not isinstance(user, ServiceUser)


def is_scoped(user: Any) -> bool:
    """Return whether the user came with a token that is for some topics alone."""
    return bool(scopes_of(user)) or isinstance(user, ServiceUser)


def require_unscoped(user: Any) -> None:
    """Raise `NotAllowed` for a user whose token has scopes: these are for topics alone."""
    if is_scoped(user):
        raise NotAllowed(
            "This access token is for the topics of its scopes alone: use one without scopes here."
        )
