"""What others see of a user. `PRESENCE_INFO` in the settings names another function."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from ..conf import settings
from .permissions import User

Info: TypeAlias = Callable[[Any], Awaitable[dict[str, Any] | None]]


async def default_info(user: Any) -> dict[str, Any]:
    """Return the user's `id`, and `username` where people sign in by one.

    No e-mail address, nor a telephone number in its place.
    """
    if user.USERNAME_FIELD == "username" and "@" not in user.username:
        return {"id": user.pk, "username": user.username}
    return {"id": user.pk}


async def sender_meta(user: User) -> dict[str, Any] | None:
    """Return the metadata of what this user publishes: who the `sender` is, for the others.

    None for an anonymous user, and for one of whom the others see nothing.
    """
    info: Info | None = settings.PRESENCE_INFO
    if info is None or not user.is_authenticated:
        return None
    seen = await info(user)
    return None if seen is None else {"sender": seen}
