"""Permissions on topics. `PERMISSION` in the settings names another rule."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, TypeAlias

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

from ..conf import settings
from ..conf.token_scopes import OWN_TOPICS
from ..conf.topics import topic_settings
from ..delivery.published import REFUSED
from ..exceptions import NotAllowed, NotIdentified
from ..utils.threads import DATABASE
from .scopes import is_in_scope
from .service_user import ServiceUser

PERMISSIONS: Final = {
    "read": "realtime.view_event",
    "publish": "realtime.add_event",
    "presence": "realtime.view_event",
}
Action: TypeAlias = Literal["read", "publish", "presence"]
VERBS: Final = {"read": "read", "publish": "publish", "presence": "see who is on"}
User: TypeAlias = AbstractBaseUser | AnonymousUser
Rule: TypeAlias = Callable[[Any, str, Action], Awaitable[bool]]


async def default_rule(user: Any, topic: str, action: Action) -> bool:
    """Return whether the topic is the user's own, or the user may read or add any event.

    `user.<pk>` and what is below it is its user's; `room.*` is for who is signed in; `public.*`
    anyone reads, and who is signed in publishes. These and everything else are for superusers,
    and for staff with the permission `realtime.view_event` or `realtime.add_event`. `READ` and
    `PUBLISH` in `TOPICS` say otherwise. Who else is there (`presence`) is for those who may read,
    but for staff where anyone may. `user` may be anonymous.
    """
    people = _people(topic, action)
    if people != "rule":
        return _is_among(user, people)
    if topic.startswith("public.") and action != "presence":
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


def _people(topic: str, action: Action) -> str:
    """Return the word that `TOPICS` has for an action."""
    if action == "publish":
        return topic_settings(topic).publish
    people = topic_settings(topic).read
    return "staff" if (people, action) == ("anyone", "presence") else people


def _is_among(user: Any, people: str) -> bool:
    if people == "staff":
        has_rank = getattr(user, "is_staff", False) or getattr(user, "is_superuser", False)
        return bool(user.is_authenticated and has_rank)
    return people == "anyone" or (people == "users" and bool(user.is_authenticated))


async def may(user: User, topic: str, action: Action) -> bool:
    """Return whether the scopes of the user's token, and then the site's rule, allow it.

    A service has no user whom the rule could judge: its scopes decide. The package's own topics are
    for superusers alone. A rule that raises denies, and the error goes to the caller.
    """
    if not is_in_scope(user, topic, action):
        return False
    # By these the processes tell each other whom to disconnect, and what they have open: no rule
    # opens them, nor the right to any event.
    if topic.startswith(OWN_TOPICS):
        return bool(getattr(user, "is_superuser", False))
    if isinstance(user, ServiceUser):
        return True
    rule: Rule = settings.PERMISSION
    return await rule(user, topic, action) is True


async def require(user: User, topic: str, action: Action) -> None:
    """Raise `NotIdentified` or `NotAllowed` unless `user` may do this."""
    if await may(user, topic, action):
        return
    if action == "publish":
        REFUSED.inc("not_allowed")
    if not is_in_scope(user, topic, action):
        raise NotAllowed(f"The access token has no scope for {action} on {topic!r}.")
    if not user.is_authenticated and not isinstance(user, ServiceUser):
        raise NotIdentified(f"Sign in, or send an access token, to {VERBS[action]} {topic!r}.")
    raise NotAllowed(f"You may not {VERBS[action]} {topic!r}.")


def require_signed_in(user: User) -> None:
    """Raise `NotIdentified` for an anonymous user, which a service is too."""
    if isinstance(user, ServiceUser):
        raise NotIdentified("This token is a service's, and this is for users alone.")
    if not user.is_authenticated:
        raise NotIdentified("Sign in, or send an access token.")
