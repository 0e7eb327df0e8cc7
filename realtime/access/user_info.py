"""What others see of a user. `PRESENCE_INFO` in the settings names another function."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from ..conf import settings
from .permissions import User
from .service_user import ServiceUser

Info: TypeAlias = Callable[[Any], Awaitable[dict[str, Any] | None]]


async def default_info(user: Any) -> dict[str, Any]:
    """Return the user's `id`, and `username` where people sign in by one.

    No e-mail address, nor a telephone number in its place.
    """
    if user.USERNAME_FIELD == "username" and "@" not in user.username:
        return {"id": user.pk, "username": user.username}
    return {"id": user.pk}


def publisher_of(user: User) -> str:
    """Return whom the idempotency keys of a request belong to; anonymous users share theirs."""
    if isinstance(user, ServiceUser):
        return f"service.{user.username}"
    return f"user.{user.pk}" if user.is_authenticated else "anonymous"


async def sender_meta(user: User) -> dict[str, Any] | None:
    """Return the metadata of what this user publishes: who the `sender` is, for the others.

    None for an anonymous user, and for one of whom the others see nothing. Of a service they see
    the name of its token.
    """
    info: Info | None = settings.PRESENCE_INFO
    if info is not None and isinstance(user, ServiceUser):
        return {"sender": {"service": user.username}}
    if info is None or not user.is_authenticated:
        return None
    seen = await info(user)
    return None if seen is None else {"sender": seen}
