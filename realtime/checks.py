"""System checks: what is wrong with the settings, with an id, a sentence and a hint."""

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import wraps
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any, Final

from channels.routing import URLRouter
from channels.security.websocket import OriginValidator
from django.apps import apps
from django.conf import settings as django_settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Warning
from django.core.management import find_commands
from django.db import connections, router
from django.utils.module_loading import import_string

from . import models
from .access.checks import check_hosts, check_user_topics, show_inline_middleware
from .conf import Settings, settings
from .conf.setting import MOVED_PATHS, DottedPath, Setting, given
from .conf.topic_patterns import TOPIC_KEYS
from .conf.topics import TopicSettings
from .delivery.bus.checks import BUS_CHECKS
from .eventlog import get_event_log
from .eventlog.base import EventLog
from .eventlog.checks import check_sql_publishers, check_time_zone
from .exceptions import RealtimeConfigurationError
from .limits.checks import check_addresses
from .presence.checks import check_presence
from .websocket.consumers import WebSocketConsumer

GENERATIONS: Final = "realtime_generation"  # the table of `realtime.llm`
LLM_PREFIX: Final = "LLM_"  # settings of `realtime.llm`, which checks them itself
NAMESAKE: Final = "realtime"  # Supabase's client, which installs the same import name
ASYNC_FUNCTIONS: Final = {
    "PERMISSION": "async def rule(user, topic, action) -> bool",
    "RATE_FOR": "async def rate(identity, action) -> str | None",
}
Check = Callable[..., list[CheckMessage]]


def register_checks() -> None:
    """Register what Django calls; called when the app registry is ready."""
    for check in CHECKS:
        checks.register(check, "realtime")
    for check in DATABASE_CHECKS:
        checks.register(check, "realtime", checks.Tags.database)
    show_inline_middleware()


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Report unknown keys, wrong values, and paths that can't be imported."""
    try:
        names = [name for name in given() if not str(name).startswith(LLM_PREFIX)]
    except RealtimeConfigurationError as error:
        return [Error(str(error), hint="REALTIME = {...}", id="realtime.E001")]
    return check_table(Settings.table(), names) or _check_paths()


def check_table(table: Mapping[str, Setting[Any]], names: Iterable[str]) -> list[CheckMessage]:
    """Report what is wrong with the keys `names` of `REALTIME`, which belong to `table`."""
    found: list[CheckMessage] = []
    for name in names:
        if name not in table:
            close = get_close_matches(str(name), table, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else "See docs/settings.md."
            if name in TOPIC_KEYS:
                hint = f'A key of topics: REALTIME = {{"TOPICS": {{"room.*": {{"{name}": ...}}}}}}'
            found.append(Error(f"REALTIME has no setting {name!r}.", hint=hint, id="realtime.E002"))
        elif problem := table[name].find_problem(given()[name]):
            message, hint = problem
            found.append(Error(f"REALTIME[{name!r}] {message}", hint=hint, id="realtime.E003"))
    return found


def with_usable_settings(check: Check) -> Check:
    """Skip a check that would fail on what `check_settings` reports."""

    @wraps(check)
    def wrapper(**kwargs: Any) -> list[CheckMessage]:
        unusable = {"realtime.E001", "realtime.E003"}
        if any(message.id in unusable for message in check_settings()):
            return []
        return check(**kwargs)

    return wrapper


def with_usable_log(check: Check) -> Check:
    """Skip a check that would fail on what is reported of the settings, the log's class too."""

    @with_usable_settings
    @wraps(check)
    def wrapper(**kwargs: Any) -> list[CheckMessage]:
        unusable = {"realtime.E006", "realtime.E008"}
        return [] if any(each.id in unusable for each in _check_paths()) else check(**kwargs)

    return wrapper


@with_usable_settings
def check_origins(**kwargs: Any) -> list[CheckMessage]:
    """Report WebSocket routes on which nothing checks the Origin header."""
    if "*" in settings.ALLOWED_ORIGINS:
        message = "ALLOWED_ORIGINS has '*': any web page is let in, without its visitors' sessions."
        hint = "List the origins, as 'https://app.example.com'."
        return [Warning(message, hint=hint, id="realtime.W002")]
    path = getattr(django_settings, "ASGI_APPLICATION", None)
    if not path:
        return []
    try:
        application = import_string(path)
    except Exception as error:  # what the module raises, as for a variable that is not set
        message = f"ASGI_APPLICATION = {path!r} can't be imported: {error!r}"
        return [Error(message, hint="Name the ASGI application.", id="realtime.E005")]
    websocket = getattr(application, "application_mapping", {}).get("websocket")
    return [
        Warning(
            f"The WebSocket consumer {name} is reached without a check of the Origin.",
            hint="Subclass realtime.websocket.consumers.WebSocketConsumer, or wrap the routes in "
            "channels.security.websocket.AllowedHostsOriginValidator.",
            id="realtime.W003",
        )
        for name in _unguarded(websocket)
    ]


def check_runserver(**kwargs: Any) -> list[CheckMessage]:
    """Report another runserver: of several commands Django takes that of the first app."""
    for app in apps.get_app_configs():
        if "runserver" in find_commands(os.path.join(app.path, "management")):
            break
    else:  # Django's own
        return []
    if app.name == "realtime":
        return []
    hint = f'INSTALLED_APPS = ["realtime", {app.name!r}, ...]'
    message = f"{app.name!r} comes before 'realtime': runserver is not the one of this package."
    return [Warning(message, hint=hint, id="realtime.W005")]


def check_namesake(**kwargs: Any) -> list[CheckMessage]:
    """Report the other package whose import name is `realtime`: one hides the other."""
    try:
        other = distribution(NAMESAKE)
    except PackageNotFoundError:
        return []
    message = (
        f"The package {NAMESAKE!r} {other.version} (Supabase's client) is installed too: of two "
        "packages of one import name, Python finds one, or a mixture of both."
    )
    hint = (
        "pip uninstall realtime, then install this package again. What needs Supabase's client "
        "has to run in an environment of its own."
    )
    return [Warning(message, hint=hint, id="realtime.W010")]


@with_usable_log
def check_event_log(**kwargs: Any) -> list[CheckMessage]:
    """Report what the event log finds wrong, such as a database that can't hold it."""
    return get_event_log().check()


@with_usable_settings
def check_retention(**kwargs: Any) -> list[CheckMessage]:
    """Report a log that is never pruned: it fills the disk."""
    rows = {"": TopicSettings.of({})}
    rows |= {f" of {each.text!r}": TopicSettings.of(each.own) for each in settings.TOPICS}
    hint = "Set RETENTION_SECONDS or RETENTION_EVENTS."
    return [
        Warning(
            f"Events{which} are kept for ever: the log grows until the disk is full.",
            hint=hint,
            id="realtime.W004",
        )
        for which, row in rows.items()
        if row.retention_seconds is None and row.retention_events is None
    ]


@with_usable_settings
def check_process_lease(**kwargs: Any) -> list[CheckMessage]:
    """Report a lease that a process outlives by being late once."""
    beat, lease = settings.PROCESS_BEAT_SECONDS, settings.PROCESS_LEASE_SECONDS
    if beat is None or lease > 2 * beat:
        return []
    message = f"PROCESS_LEASE_SECONDS = {lease} is not over two of PROCESS_BEAT_SECONDS = {beat}."
    hint = "Keep it several beats, or processes that are late once are taken for gone."
    return [Warning(message, hint=hint, id="realtime.W011")]


@with_usable_settings
def check_moved_paths(**kwargs: Any) -> list[CheckMessage]:
    """Report old dotted paths, which still work, with the new ones."""
    return [
        Warning(
            f"REALTIME[{name!r}] = {value!r} has moved.",
            hint=f"Write {MOVED_PATHS[value]!r}.",
            id="realtime.W007",
        )
        for name, value in given().items()
        if isinstance(value, str) and value in MOVED_PATHS
    ]


@with_usable_settings
def check_language_models(**kwargs: Any) -> list[CheckMessage]:
    """Report settings of `realtime.llm`, once part of the core, without the app."""
    names = [name for name in given() if str(name).startswith(LLM_PREFIX)]
    if apps.is_installed("realtime.llm") or not names:
        return []
    message = f"REALTIME has {names[0]!r}, and the app realtime.llm is not installed."
    hint = 'INSTALLED_APPS = ["realtime", "realtime.llm", ...], or remove the settings.'
    return [Warning(message, hint=hint, id="realtime.W008")]


def check_generations(databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report rows of `realtime.llm`, which had been part of the core, without the app."""
    alias = router.db_for_read(models.Event)
    if apps.is_installed("realtime.llm") or alias not in (databases or ()):
        return []
    if connections[alias].vendor == "unknown":  # as Django calls {}; from 6.1 on it names that too
        return []
    with connections[alias].cursor() as cursor:
        if GENERATIONS not in connections[alias].introspection.table_names(cursor):
            return []
        cursor.execute(f"SELECT 1 FROM {GENERATIONS} LIMIT 1")
        if cursor.fetchone() is None:
            return []
    message = f"The table {GENERATIONS} has rows, and the app realtime.llm is not installed."
    hint = 'INSTALLED_APPS = ["realtime", "realtime.llm", ...], or empty the table.'
    return [Warning(message, hint=hint, id="realtime.W008")]


CHECKS = (
    check_settings,
    check_moved_paths,
    *map(with_usable_settings, BUS_CHECKS),
    check_hosts,
    with_usable_settings(check_user_topics),
    with_usable_settings(check_presence),
    check_origins,
    check_event_log,
    check_time_zone,
    check_retention,
    check_process_lease,
    with_usable_settings(check_addresses),
    check_runserver,
    check_namesake,
    check_language_models,
)
DATABASE_CHECKS = (check_generations, with_usable_log(check_sql_publishers))


def _check_paths() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for name, setting in Settings.table().items():
        if not isinstance(setting, DottedPath):
            continue
        hint = f"The default is {setting.default!r}."
        try:
            value = getattr(settings, name)
        except RealtimeConfigurationError as error:
            found.append(Error(str(error), hint=hint, id="realtime.E006"))
            continue
        if name == "EVENT_LOG" and not (inspect.isclass(value) and issubclass(value, EventLog)):
            message = "REALTIME['EVENT_LOG'] is not a subclass of realtime.eventlog.base.EventLog."
            found.append(Error(message, hint=hint, id="realtime.E008"))
        if name in ASYNC_FUNCTIONS and value is not None and not _is_async(value):
            message = f"REALTIME[{name!r}] is not an async function."
            hint = f"Write `{ASYNC_FUNCTIONS[name]}`."
            found.append(Error(message, hint=hint, id="realtime.E007"))
    return found


def _is_async(rule: Any) -> bool:
    """Return whether it is a coroutine function, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(rule) or inspect.iscoroutinefunction(type(rule).__call__)


def _unguarded(application: Any) -> Iterator[str]:
    """Yield the names of the consumers that are reached without an Origin check."""
    if application is None or isinstance(application, OriginValidator):
        return
    consumer = getattr(application, "consumer_class", None)
    if consumer is not None:
        if not issubclass(consumer, WebSocketConsumer):
            yield f"{consumer.__module__}.{consumer.__qualname__}"
        return
    if isinstance(application, URLRouter):  # of other frameworks' routes nothing is known
        for route in application.routes:
            yield from _unguarded(route.callback)
    for attribute in ("inner", "application"):
        if hasattr(application, attribute):
            yield from _unguarded(getattr(application, attribute))
