"""The user of an identity, as it is now."""

from .identity import ANONYMOUS
from .permissions import User
from .sessions import find_session
from .tokens import is_active, valid_tokens


def find_user(source: str, key: str) -> User | None:
    """Return the user that an identity stands for now; None when it stands for nobody any more."""
    if source == "session":
        user = find_session(key).user
        return user if user.is_authenticated else None
    if source == "token":
        token = valid_tokens().filter(pk=key).select_related("user").first()
        return token.user if token and is_active(token.user) else None
    if source == "ticket":
        source, _, key = key.partition(":")
        return find_user(source, key)
    return ANONYMOUS.user
