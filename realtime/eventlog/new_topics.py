"""Make the rows of topics that have none yet."""

from collections.abc import Sequence
from typing import Any, Final

from django.db import OperationalError, transaction

from .. import models

# By the database: what makes an INSERT fail where it would wait (it has no SKIP LOCKED), and what
# takes that back. 20 ms are for another process that makes the same topic: it commits meanwhile.
# MySQL is not among them, since the least that it can wait is a second.
HASTE: Final = {
    "postgresql": ("SET LOCAL lock_timeout = '20ms'", "SET LOCAL lock_timeout TO DEFAULT"),
    "mariadb": (
        "SET @realtime_wait = @@innodb_lock_wait_timeout, innodb_lock_wait_timeout = 0",
        "SET innodb_lock_wait_timeout = @realtime_wait",
    ),
}
LOCK_WAIT_TIMEOUT: Final = 1205  # MariaDB's number for a lock that can't be had


def make_topic(connection: Any, name: str) -> None:
    """Make a topic that others may be making too; wait for them."""
    # Two publishers may both find the topic missing: the constraint lets one insert win.
    how: dict[str, Any] = {"ignore_conflicts": True}
    if connection.vendor == "mysql":  # there it would share the row's lock, and two deadlock
        how = {"update_conflicts": True, "update_fields": ["name"]}
    topics = models.Topic.objects.using(connection.alias)
    topics.bulk_create([models.Topic(name=name)], **how)


def make_missing(cursor: Any, names: Sequence[str]) -> bool:
    """Make those of the topics that have no row, without waiting; return whether any had none.

    A topic that is made in a transaction which has not ended is left to that.
    """
    connection = cursor.db
    is_mariadb = getattr(connection, "mysql_is_mariadb", False)
    haste = HASTE.get("mariadb" if is_mariadb else connection.vendor)
    rows = models.Topic.objects.using(connection.alias).filter(name__in=names)
    missing = [] if haste is None else sorted({*names} - {*rows.values_list("name", flat=True)})
    if haste is None or not missing:
        return False
    begin, end = haste
    cursor.execute(begin)
    for name in missing:
        try:
            with transaction.atomic(using=connection.alias):
                make_topic(connection, name)
        except OperationalError as error:
            if not _is_lock_held(error):
                raise
    cursor.execute(end)
    return True


def _is_lock_held(error: OperationalError) -> bool:
    is_refused = getattr(error.__cause__, "sqlstate", None) == "55P03"  # lock not available
    return is_refused or error.args[:1] == (LOCK_WAIT_TIMEOUT,)
