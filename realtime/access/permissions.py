"""Who may do what on a topic. `PERMISSION` in the settings names another rule."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, TypeAlias

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

from ..conf import settings
from ..exceptions import NotAllowed, NotIdentified
from ..utils.threads import DATABASE

PERMISSIONS: Final = {"read": "realtime.view_event", "publish": "realtime.add_event"}
Action: TypeAlias = Literal["read", "publish"]
User: TypeAlias = AbstractBaseUser | AnonymousUser
Rule: TypeAlias = Callable[[Any, str, Action], Awaitable[bool]]


async def default_rule(user: Any, topic: str, action: Action) -> bool:
    """Return whether the topic is the user's own, or the user may read or add any event.

    `user.<pk>` and what is below it is its user's; `room.*` is for who is signed in; `public.*`
    anyone reads, and who is signed in publishes. These and everything else are for superusers,
    and for staff with the permission `realtime.view_event` or `realtime.add_event`. `user` may be
    anonymous.
    """
    if topic.startswith("public."):
        return action == "read" or bool(user.is_authenticated)
    if not user.is_authenticated:
        return False
    if topic.startswith("room."):
        return True
    # A key with a dot has no topic of its own (`user_topic`): it would be below another user's.
    if "." not in str(user.pk) and f"{topic}.".startswith(f"user.{user.pk}."):
        return True
    if getattr(user, "is_superuser", False):
        return True
    if not getattr(user, "is_staff", False) or not hasattr(user, "has_perm"):
        return False
    return await DATABASE.run_twice(user.has_perm, PERMISSIONS[action]) is True


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
