"""Who may do what on a topic. `PERMISSION` in the settings names another rule."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

from ..conf import settings
from ..exceptions import NotAllowed, NotIdentified

Action: TypeAlias = Literal["read", "publish"]
User: TypeAlias = AbstractBaseUser | AnonymousUser
Rule: TypeAlias = Callable[[Any, str, Action], Awaitable[bool]]


async def default_rule(user: Any, topic: str, action: Action) -> bool:
    """`user.<pk>` and what is below it: its user and staff.

    `room.*` who is signed in; `public.*` anyone reads and who is signed in publishes; everything
    else staff. `user` may be anonymous.
    """
    if topic.startswith("public."):
        return action == "read" or bool(user.is_authenticated)
    if not user.is_authenticated:
        return False
    if topic.startswith("room.") or f"{topic}.".startswith(f"user.{user.pk}."):
        return True
    return bool(getattr(user, "is_staff", False))


async def may(user: User, topic: str, action: Action) -> bool:
    """Ask the site's rule. A rule that raises denies, and the error goes to the caller."""
    rule: Rule = settings.PERMISSION
    return await rule(user, topic, action) is True


async def require(user: User, topic: str, action: Action) -> None:
    """Raise `NotIdentified` or `NotAllowed` unless `user` may do this."""
    if await may(user, topic, action):
        return
    if not user.is_authenticated:
        raise NotIdentified(f"Sign in, or send an access token, to {action} {topic!r}.")
    raise NotAllowed(f"You may not {action} {topic!r}.")
