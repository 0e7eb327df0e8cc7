"""`realtime.eventlog.checks`: publishers by SQL whom nobody reads, and times without a zone."""

from collections.abc import Iterator

import pytest
from django.core import checks
from django.db import connection
from django.test import override_settings

from ..support.databases import ON_POSTGRESQL

MEMORY = {"EVENT_LOG": "realtime.eventlog.memory.MemoryLog"}
CALLER = """
CREATE FUNCTION order_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM realtime_publish('orders', '{}'::jsonb); RETURN NULL; END $$
"""
RIGHT = "GRANT EXECUTE ON FUNCTION realtime_publish(text, jsonb, text, boolean) TO PUBLIC"
on_postgresql = pytest.mark.skipif(not ON_POSTGRESQL, reason="a function of PostgreSQL")
pytestmark = pytest.mark.django_db


def found(**settings: str) -> list[checks.CheckMessage]:
    with override_settings(REALTIME=settings):
        messages = checks.run_checks(tags=["realtime"], databases=["default"])
    return [each for each in messages if each.id == "realtime.W015"]


@pytest.fixture(params=[CALLER, RIGHT])
def caller(request: pytest.FixtureRequest) -> Iterator[str]:
    with connection.cursor() as cursor:
        cursor.execute(request.param)
    return "order_changed" if request.param is CALLER else "roles with a right to it"


@pytest.mark.parametrize(
    ("is_on", "zone", "said"),
    [
        (False, "Europe/Berlin", not ON_POSTGRESQL),
        (False, "UTC", False),
        (True, "Asia/Tokyo", False),
    ],
)
def test_times_without_a_zone_are_warned_of(is_on, zone, said):
    with override_settings(USE_TZ=is_on, TIME_ZONE=zone):
        messages = checks.run_checks(tags=["realtime"])
    assert [each.id for each in messages] == ["realtime.W017"] * said
    assert all(zone in each.msg and "USE_TZ = True" in each.hint for each in messages)


def test_without_callers_nothing_is_said():
    assert found() == found(**MEMORY) == []


@on_postgresql
def test_callers_are_named_where_the_log_is_not_in_the_database(caller):
    assert found() == []
    [message] = found(**MEMORY)
    assert caller in message.msg
    with override_settings(REALTIME=MEMORY):
        ids = [each.id for each in checks.run_checks(tags=["realtime"])]
    assert "realtime.W015" not in ids  # asks no database unless told to


def test_a_log_that_cant_be_made_is_reported_by_its_own_check():
    assert found(EVENT_LOG="realtime.nothing.Log") == []
