"""`realtime.utils.sqlite`: how long another writer is waited for."""

from contextlib import suppress

import pytest
from django.db import DEFAULT_DB_ALIAS, connection

from realtime.utils.sqlite import wait_at_most

pytestmark = pytest.mark.django_db(transaction=True)


def limit() -> int:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        (milliseconds,) = cursor.fetchone()
    return int(milliseconds)


@pytest.mark.skipif("connection.vendor != 'sqlite'")
def test_another_time_counts_until_the_end_whatever_happens():
    before = limit()
    with suppress(RuntimeError), wait_at_most(DEFAULT_DB_ALIAS, 7):
        assert limit() == 7
        raise RuntimeError
    assert limit() == before != 7


def test_other_databases_are_left_alone(monkeypatch):
    monkeypatch.setattr(connection, "vendor", "postgresql")
    monkeypatch.setattr(connection, "cursor", None)  # that is called for SQLite
    with wait_at_most(DEFAULT_DB_ALIAS, 7):
        pass
