"""`realtime_publish` of PostgreSQL: events by SQL, in one order with those of Python."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.apps import apps
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.test import override_settings

from realtime import models
from realtime.delivery.publish import apublish
from realtime.eventlog.publish_function import MAX_DEPTH, create
from realtime.events.payload import decode_data
from realtime.events.position import START, parse_position
from realtime.testing import event_stream

from ..support.asgi import application
from ..support.databases import ON_POSTGRESQL
from ..support.servers import ROOT
from .support import Threads, append, offsets, read

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not ON_POSTGRESQL, reason="a function of PostgreSQL"),
]
TRIGGER = (ROOT / "docs" / "examples" / "publish_trigger.sql").read_text()


def execute(sql: str, *values: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, values or None)
        return cursor.fetchone()[0] if cursor.description else None


def publish(topic: str | None, data: str | None = "1", type: str | None = "message") -> Any:
    return execute("SELECT realtime_publish(%s, %s, %s)", topic, data, type)


def test_it_returns_the_id_of_an_event_that_readers_get():
    event_id = execute("""SELECT realtime_publish('sql.a', '{"n": [1, null], "ž": "a\\nb"}')""")
    [event] = read("sql.a", START).events
    assert event.id == event_id
    assert (event.type, event.offset, event.meta) == ("message", 1, None)
    assert decode_data(event.data) == {"n": [1, None], "ž": "a\nb"}
    assert "\n" not in event.data
    batch, created = models.Event.objects.values_list("batch", "created").get()
    assert batch is not None
    assert execute("SELECT abs(extract(epoch FROM now() - %s)) < 60", created)


def test_it_goes_on_where_python_stopped_and_python_after_it():
    first = append("sql.a", "message", "1")
    second = parse_position(publish("sql.a", type="said"))
    assert (second.epoch, second.offset) == (first.epoch, 2)
    assert append("sql.a", "message", "3").offset == 3
    assert [event.type for event in read("sql.a", START).events] == ["message", "said", "message"]


def test_a_rollback_takes_it_back_and_leaves_no_gap():
    with transaction.atomic():
        publish("sql.a")
        transaction.set_rollback(True)
    assert parse_position(publish("sql.a")).offset == 1
    with transaction.atomic():
        publish("sql.a")
        with transaction.atomic():
            publish("sql.a")
            transaction.set_rollback(True)
    assert offsets("sql.a") == [1, 2]


def test_by_sql_and_by_python_at_once_leaves_no_gap_and_no_duplicate():
    each, start = 20, threading.Barrier(8)

    def many(name: str, one: Any) -> None:
        start.wait()  # all of them find the topic missing
        for number in range(each):
            one("sql.a", json.dumps(f"{name} {number}"))

    with Threads(8) as threads:
        for number in range(4):
            threads.start(many, f"sql {number}", publish)
            threads.start(many, f"python {number}", lambda topic, data: append(topic, "m", data))
    assert offsets("sql.a") == list(range(1, 8 * each + 1))
    said = [json.loads(event.data) for event in read("sql.a", START).events]
    assert len(set(said)) == 8 * each
    for name in {text.rpartition(" ")[0] for text in said}:
        numbers = [int(text.split()[-1]) for text in said if text.startswith(name)]
        assert numbers == list(range(each)), "what one publishes stays in its order"


def test_a_trigger_of_a_table_that_django_does_not_know_publishes():
    execute("CREATE TABLE shop_order (id int PRIMARY KEY, status text)")
    execute(TRIGGER)
    try:
        execute("INSERT INTO shop_order VALUES (7, 'new'), (8, 'new')")
        with transaction.atomic():
            execute("UPDATE shop_order SET status = 'lost'")
            transaction.set_rollback(True)
        execute("UPDATE shop_order SET status = 'sent' WHERE id = 7")
    finally:
        execute("DROP TABLE shop_order; DROP FUNCTION order_changed()")
    events = read("order.7", START).events
    assert [json.loads(event.data)["status"] for event in events] == ["new", "sent"]
    assert {event.type for event in events} == {"changed"}
    assert offsets("order.8") == [1]


@pytest.mark.parametrize(
    ("topic", "data", "type", "message", "hint"),
    [
        (None, "1", "a", "NULL can't be a topic", "1 to 99 ASCII"),
        ("", "1", "a", "'' can't be a topic", "1 to 99 ASCII"),
        ("room a", "1", "a", "'room a' can't be a topic", "1 to 99 ASCII"),
        ("žluť", "1", "a", "can't be a topic", "1 to 99 ASCII"),
        ("a\n", "1", "a", "can't be a topic", "1 to 99 ASCII"),
        ("a" * 100, "1", "a", "can't be a topic", "1 to 99 ASCII"),
        ("realtime.revocation", "1", "a", "a topic of the package's own", "does not begin"),
        ("realtime.", "1", "a", "'realtime.' is a topic of the package's own", "does not begin"),
        ("sql.a", None, "a", "NULL, which is not JSON", "'null'::jsonb"),
        ("sql.a", "1", None, "NULL can't be an event's type", "1 to 64"),
        ("sql.a", "1", "", "'' can't be an event's type", "1 to 64"),
        ("sql.a", "1", "a\r", "can't be an event's type", "1 to 64"),
        ("sql.a", "1", "a\x7f", "can't be an event's type", "1 to 64"),
        ("sql.a", "1", "a" * 65, "can't be an event's type", "1 to 64"),
        ("sql.a", "1", "reset", "reserved", "another word"),
        ("sql.a", f'"{"ž" * 32_768}"', "a", "65538 bytes", "MAX_EVENT_BYTES"),
        ("sql.a", "[[2e308]]", "a", "out of range", "as a string"),
        ("sql.a", '{"a": -1e400}', "a", "out of range", "as a string"),
        ("sql.a", "[" * 501 + "]" * 501, "a", "more than 500 deep", "Flatten"),
    ],
)
def test_what_is_invalid_is_refused_with_the_remedy(topic, data, type, message, hint):
    with pytest.raises(DatabaseError, match=message) as caught:
        publish(topic, data, type)
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert hint in (caught.value.__cause__.diag.message_hint or "")
    assert not models.Topic.objects.exists()


@pytest.mark.parametrize(
    ("data", "type"),
    [
        (f'"{"ž" * 32_767}"', "a"),
        (json.dumps([10**308, -(10**308), 1.5, "9" * 400, {"n": 5e-324}] * 3), "ž" * 64),
        ("[" * MAX_DEPTH + "]" * MAX_DEPTH, "🐎"),
        ("null", "a b"),
        (r'"\u2028\u0001\"\\"', "resets"),
    ],
    ids=["long", "numbers", "deep", "null", "escapes"],
)
def test_python_could_have_published_what_is_taken(data, type):
    publish("A-z_0.9", data, type)
    [event] = read("A-z_0.9", START).events
    assert decode_data(event.data) == json.loads(data)
    assert event.type == type


@contextmanager
def role(*rights: str) -> Iterator[str]:
    """In a transaction, as somebody who has these rights alone; nothing of it stays."""
    name = f"realtime_{uuid4().hex}"
    with transaction.atomic():
        execute(f"CREATE ROLE {name}")
        for right in rights:
            execute(right.format(role=name))
        execute(f"SET LOCAL ROLE {name}")
        yield name
        transaction.set_rollback(True)


GRANT = "GRANT EXECUTE ON FUNCTION realtime_publish(text, jsonb, text, boolean) TO {role}"


def test_whoever_may_execute_it_needs_no_right_on_the_tables():
    with role(GRANT):
        assert parse_position(publish("sql.a")).offset == 1
        with pytest.raises(DatabaseError, match="permission denied"), transaction.atomic():
            execute("SELECT count(*) FROM realtime_event")


def test_nobody_else_may_execute_it():
    with role(), pytest.raises(DatabaseError, match="permission denied"), transaction.atomic():
        publish("sql.a")


def test_functions_and_tables_of_the_caller_are_not_used_with_the_rights_of_the_owner():
    with role(GRANT, "CREATE SCHEMA mine AUTHORIZATION {role}"):
        execute(
            "CREATE FUNCTION mine.octet_length(text) RETURNS int LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE 'called as %', current_user; END $$"
        )
        execute("CREATE TEMP TABLE realtime_topic (name text)")
        execute("SET LOCAL search_path = mine, pg_catalog, public")
        assert parse_position(publish("sql.a")).offset == 1


def test_it_is_replaced_for_another_limit_and_keeps_the_rights():
    with role(GRANT) as name:
        execute("RESET ROLE")
        with (
            override_settings(REALTIME={"MAX_EVENT_BYTES": 10}),
            connection.schema_editor() as editor,
        ):
            create(apps, editor)
        execute(f"SET LOCAL ROLE {name}")
        publish("sql.a", '"12345678"')
        with pytest.raises(DatabaseError, match="more than 10"), transaction.atomic():
            publish("sql.a", '"123456789"')


def test_where_everybody_was_given_it_everybody_keeps_it():
    with role() as name:
        execute("RESET ROLE")
        execute(GRANT.format(role="PUBLIC"))
        with connection.schema_editor() as editor:
            create(apps, editor)
        execute(f"SET LOCAL ROLE {name}")
        assert parse_position(publish("sql.a")).offset == 1


def test_it_stands_beside_the_tables_whatever_schema_has_them():
    with transaction.atomic():
        execute("CREATE SCHEMA tenant")
        for table in ("topic", "event"):
            like = f"tenant.realtime_{table} (LIKE public.realtime_{table} INCLUDING ALL)"
            execute(f"CREATE TABLE {like}")
        execute("SET LOCAL search_path = tenant, public")
        with connection.schema_editor() as editor:
            create(apps, editor)
        publish("sql.a")
        assert execute("SELECT count(*) FROM tenant.realtime_event") == 1
        assert execute("SELECT count(*) FROM public.realtime_event") == 0
        transaction.set_rollback(True)


def test_the_migration_goes_back_and_forth():
    find = "SELECT to_regprocedure('realtime_publish(text, jsonb, text, boolean)') IS NOT NULL"
    assert execute(find)
    call_command("migrate", "realtime", "0008", verbosity=0)
    try:
        assert not execute(find)
    finally:
        call_command("migrate", "realtime", verbosity=0)
    assert execute(find)


BEFORE = """
CREATE OR REPLACE FUNCTION realtime_publish(
    topic text, data jsonb, type text DEFAULT 'message', announce boolean DEFAULT false
) RETURNS text LANGUAGE sql AS $$ SELECT 'taken' $$
"""


def test_a_site_that_has_the_one_before_gets_the_one_that_refuses_the_packages_own_topics():
    call_command("migrate", "realtime", "0014", verbosity=0)
    try:
        execute(BEFORE)
        assert publish("realtime.revocation", '{"disconnect": "7"}') == "taken"
    finally:
        call_command("migrate", "realtime", verbosity=0)
    with pytest.raises(DatabaseError, match="of the package's own"):
        publish("realtime.revocation", '{"disconnect": "7"}')
    assert parse_position(publish("realtimes.a")).offset == 1


@override_settings(REALTIME={"HEAD_CHECK_SECONDS": 0.1})
async def test_readers_that_are_connected_get_it():
    alice = await User.objects.acreate(username="alice")
    async with event_stream(application, "/topics/room.a/events", user=alice) as stream:
        first = await sync_to_async(publish)("room.a", '"by SQL"')
        event = await stream.receive()
        assert (event.id, event.json()) == (first, "by SQL")
        second = await apublish("room.a", "by Python")
        assert (await stream.receive()).id == second.id
