"""The lines that the database writes are those that Python would have written; else Python does."""

import datetime
import decimal
import json
import sqlite3
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import connection, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F
from django.test.utils import CaptureQueriesContext, isolate_apps
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from realtime.models import Event
from realtime.streaming.sql_json import MAX_FIELDS, Lines, is_able

from .sql_json.support import FIELDS, MIXED, OTHERS, Thing, sent, standard, written


def decimals(digits: int, places: int) -> Any:
    most = decimal.Decimal(10) ** (digits - places) - 1
    return st.decimals(-most, most, places=places)


things = st.fixed_dictionaries(
    {"key": st.uuids()},
    optional={
        "text": st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20
        ),
        "price": decimals(10, 2),
        "count": st.integers(0, 2**31 - 1),
        "at": st.datetimes(timezones=st.just(datetime.UTC)),
        "day": st.dates(),
        "flag": st.booleans(),
        "number": st.integers(-(2**63), 2**63 - 1),
        "tiny": decimals(12, 9),
        "wide": decimals(14, 4),
        "ratio": st.floats(-1e6, 1e6),
        "data": st.lists(st.integers(0, 9), max_size=3),
    },
)


@given(st.lists(things, max_size=5))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_lines_are_those_of_django(table, given_things):
    Thing.objects.all().delete()
    first = None
    for thing in given_things:
        made = Thing.objects.create(**thing, parent=first)
        first = first or made
    assert written() == standard() == sent()
    assert written(MIXED) == standard(MIXED) == sent(MIXED)
    assert written(OTHERS) is None
    assert standard(OTHERS) == sent(OTHERS)


def test_fields_by_other_names(table):
    thing = Thing.objects.create(text="a")
    Thing.objects.create(parent=thing)
    names = ("pk", "text", "parent")
    assert written(names) == standard(names)
    (_, second) = map(json.loads, written(names) or [])
    assert second == {"pk": thing.pk + 1, "text": None, "parent": thing.pk}


def test_any_rows_in_the_order_of_the_key(table):
    for number in (3, 1, 2, 3, 3):
        Thing.objects.create(number=number)
    rows = Thing.objects.filter(number=3)
    wanted = [f'{{"id":{pk}}}' for pk in rows.order_by("pk").values_list("pk", flat=True)]
    for size in (1, 2, 3, 9):
        assert written(("id",), rows, size) == wanted
        assert written(("id",), rows.select_related("parent"), size) == wanted
    assert written(("id",), rows.filter(number=4)) == []


def test_fields_that_python_writes_keep_their_places(table):
    Thing.objects.create(text="%s", ratio=0.5, data={"a": "%"}, number=1)
    for names in (MIXED, MIXED[::-1], ("id", "ratio"), ("ratio", "id")):
        assert written(names) == standard(names)
        assert written(names, Thing.objects.filter(number=2)) == []


def test_an_empty_queryset_is_not_sent_to_the_database(table):
    written()  # what the database can do is found out
    lines = Lines.of(Thing.objects.none(), ("id",))
    assert lines is not None
    with CaptureQueriesContext(connection) as captured:
        assert lines.fetch(None, 9) is None
    assert not [query for query in captured if not query["sql"].startswith("PRAGMA")]


def test_a_page_is_one_query(table):
    Thing.objects.bulk_create(Thing(number=number) for number in range(5))
    written()  # what the database can do is found out
    with CaptureQueriesContext(connection) as captured:
        assert len(written(size=2) or []) == 5
    pages = [query["sql"] for query in captured if not query["sql"].startswith("PRAGMA")]
    assert len(pages) == 3


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (Thing.objects.annotate(shout=F("text")), ("shout",)),
        (Thing.objects.extra(select={"one": "1"}), ("id",)),
        (Thing.objects.select_for_update(), ("id",)),
        (Thing.objects.all(), ("id", "missing")),
        (Thing.objects.all(), ("parent__text",)),
        (Thing.objects.all(), ("id",) * (MAX_FIELDS + 1)),
        (Session.objects.all(), ("session_key",)),  # not an integer, and nobody knows its order
    ],
)
def test_what_is_left_to_python(table, rows, names):
    assert Lines.of(rows, names) is None


def test_as_many_fields_as_a_statement_may_have(table):
    Thing.objects.create()
    assert written(("id",) * MAX_FIELDS) is not None


@isolate_apps("tests")
def test_a_field_by_the_name_of_a_column_of_ours(table):
    class Pairs(models.Model):  # noqa: DJ008
        realtime_pairs = models.TextField()
        pairs1 = models.TextField()
        line = models.TextField()

        class Meta:
            app_label = "tests"

    with connection.schema_editor() as editor:
        editor.create_model(Pairs)
    try:
        Pairs.objects.create(realtime_pairs="a", pairs1="b", line="c")
        names = ("realtime_pairs", "pairs1", "line")
        assert written(names, Pairs.objects.all()) == [
            '{"realtime_pairs":"a","pairs1":"b","line":"c"}'
        ]
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(Pairs)


def test_a_page_too_large_for_one_text_is_left_to_python(sqlite, monkeypatch):
    Thing.objects.bulk_create(Thing(text="x" * 50) for _ in range(40))
    connection.ensure_connection()
    before = connection.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2_000)
    try:
        assert written(("id", "text"), size=100) is None
        assert written(("id", "text"), size=5) == standard(("id", "text"))
    finally:
        connection.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, before)


def test_the_other_pages_are_written_by_the_database(sqlite, settings):
    settings.REALTIME = {"PAGE_ROWS": 2}
    Thing.objects.bulk_create(Thing(number=number) for number in range(6))
    pk = Thing.objects.order_by("pk")[3].pk
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {Thing._meta.db_table} SET day = '2025-1-1' WHERE id = {pk}")
    lines = Lines.of(Thing.objects.all(), FIELDS)
    assert lines is not None
    pages = [lines.fetch(last, 2) for last in (None, pk - 2, pk)]
    assert [None if page is None else page.rows for page in pages] == [2, None, 2]
    assert sent() == standard()


def test_an_sqlite_that_knows_no_json(sqlite, monkeypatch):
    Thing.objects.create()
    monkeypatch.setattr(connection.features, "supports_json_field", False)
    assert written() is None


@pytest.mark.parametrize(("encoding", "able"), [("UTF-8", True), ("UTF-16", False)])
def test_an_sqlite_in_another_encoding(sqlite, encoding, able):
    other = connection.copy()
    other.settings_dict = {**connection.settings_dict, "NAME": ":memory:"}
    try:
        with other.cursor() as cursor:
            cursor.execute(f"PRAGMA encoding = '{encoding}'")
        assert is_able(other) is able
    finally:
        other.close()
        BaseDatabaseWrapper.close(other)  # Django keeps databases in memory open


def test_events_of_the_log(table):
    assert Lines.of(Event.objects.all(), ("id", "offset", "type", "data")) is not None
