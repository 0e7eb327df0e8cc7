"""System checks of who is let in: hosts, topics of users, and Django's own about middleware."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Tags, Warning
from django.core.checks.registry import registry
from django.utils.module_loading import import_string

from ..conf import settings
from ..conf.topics import topic_settings
from ..events.topic import user_topic

INLINE: Final = "realtime.middleware."


def check_hosts(**kwargs: Any) -> list[CheckMessage]:
    """Report an empty ALLOWED_HOSTS: with DEBUG off Django answers only the hosts named there."""
    if django_settings.DEBUG or django_settings.ALLOWED_HOSTS:
        return []
    hint = "Set ALLOWED_HOSTS to the names the site is reached by."
    message = "DEBUG is off and ALLOWED_HOSTS empty: every request gets a 400."
    return [Warning(message, hint=hint, id="realtime.W001")]


def check_user_topics(**kwargs: Any) -> list[CheckMessage]:
    """Report a pattern of topics by which users may read what is sent to others."""
    topic = user_topic(1)
    if topic_settings(topic).read not in ("anyone", "users"):
        return []
    pattern = next(each.text for each in settings.TOPICS if each.matches(topic))
    message = f"By {pattern!r} in TOPICS others may read what is sent to a user, as {topic!r}."
    hint = "Put 'user.*': {} before it; or silence this, where it is meant."
    return [Warning(message, hint=hint, id="realtime.W013")]


def show_inline_middleware() -> None:
    """Let Django's checks for deployment see what `realtime.middleware` stands for.

    They look for the paths of Django's own classes in MIDDLEWARE, not for subclasses, and would
    report those as missing, and nothing of the settings that they read.
    """
    for check in list(registry.deployment_checks):
        if Tags.security in check.tags and check.__module__.startswith("django."):
            registry.deployment_checks.remove(check)
            registry.register(_with_djangos_paths(check), *check.tags, deploy=True)


def _with_djangos_paths(check: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(check)
    def wrapper(**kwargs: Any) -> Any:
        given = django_settings.MIDDLEWARE
        django_settings.MIDDLEWARE = [_djangos_path(path) for path in given]
        try:
            return check(**kwargs)
        finally:
            django_settings.MIDDLEWARE = given

    wrapper.__module__ = __name__  # wrapped once
    return wrapper


def _djangos_path(path: str) -> str:
    if not path.startswith(INLINE):
        return path
    for base in import_string(path).__mro__:
        if base.__module__.startswith("django."):
            return f"{base.__module__}.{base.__qualname__}"
    return path
