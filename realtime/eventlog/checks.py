"""System checks of what publishes past the package: it has to write where readers read."""

from typing import Any, Final

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
