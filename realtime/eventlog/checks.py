"""System checks of what publishes past the package, and of the database's clock."""

from typing import Any, Final

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Warning
from django.db import connections

from . import get_event_log
from .writer import alias

# Of the functions that call it, and of roles that may: triggers and services are among them.
CALLERS: Final = """
SELECT CASE WHEN proname = 'realtime_publish' THEN 'roles with a right to it'
    ELSE 'the function ' || proname END
FROM pg_proc WHERE proname <> 'realtime_publish' AND prosrc LIKE '%realtime_publish(%'
OR proname = 'realtime_publish' AND EXISTS (
    SELECT FROM aclexplode(proacl) WHERE grantee <> proowner AND privilege_type = 'EXECUTE'
) ORDER BY 1
"""


def check_time_zone(**kwargs: Any) -> list[CheckMessage]:
    """Report times without a zone, of which those by the database's clock would be in UTC."""
    is_utc = django_settings.USE_TZ or django_settings.TIME_ZONE == "UTC"
    if is_utc or connections[alias()].vendor == "postgresql":  # whose connections have TIME_ZONE
        return []
    message = (
        "USE_TZ is off: the times of events and processes are by the database's clock, in UTC, and "
        f"those of topics and tokens in {django_settings.TIME_ZONE}."
    )
    hint = "Set USE_TZ = True, which is Django's default."
    return [Warning(message, hint=hint, id="realtime.W017")]


def check_sql_publishers(databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report what publishes by SQL, to the database, while the log is somewhere else."""
    name = alias()
    if name not in (databases or ()) or get_event_log().supports_transactions:
        return []
    connection = connections[name]
    if connection.vendor != "postgresql":
        return []
    with connection.cursor() as cursor:
        cursor.execute(CALLERS)
        callers = ", ".join(caller for (caller,) in cursor.fetchall())
    if not callers:
        return []
    message = (
        f"realtime_publish() has callers in DATABASES[{name!r}]: {callers}. What it stores there "
        "nobody reads, since EVENT_LOG names another log."
    )
    hint = "Use the log in the database, or publish from Python; then drop them, or revoke it."
    return [Warning(message, hint=hint, id="realtime.W015")]
