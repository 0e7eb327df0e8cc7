"""The lines that the database writes are those that Python would have written; else Python does."""

import datetime
import decimal
import json
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.sessions.models import Session
from django.db import connection, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, QuerySet
from django.test.utils import CaptureQueriesContext, isolate_apps
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from realtime.models import Event
from realtime.streaming.json_columns import encode_lines
from realtime.streaming.ndjson import NDJSONResponse
from realtime.streaming.sql_json import MAX_FIELDS, Lines
from realtime.streaming.sql_json.sqlite import is_able

FIELDS = ("id", "text", "price", "count", "at", "day", "key", "flag", "number", "parent_id")
OTHERS = ("ratio", "tiny", "data")  # Python writes these
MIXED = ("ratio", "id", "text", "tiny", "data", "price", "wide", "at")


class Thing(models.Model):  # noqa: DJ008
    """A column of each kind; one of each may be NULL, and some may not."""

    text = models.CharField(max_length=50, null=True)  # noqa: DJ001
    price = models.DecimalField(max_digits=10, decimal_places=2, null=True)
    count = models.PositiveIntegerField(default=0)
    at = models.DateTimeField(null=True)
    day = models.DateField(null=True)
    key = models.UUIDField(default=uuid.uuid4)
    flag = models.BooleanField(null=True)
    number = models.BigIntegerField(null=True)
    parent = models.ForeignKey("self", models.CASCADE, null=True)
    tiny = models.DecimalField(max_digits=12, decimal_places=9, null=True)
    wide = models.DecimalField(max_digits=30, decimal_places=4, null=True)
    ratio = models.FloatField(null=True)
    data = models.JSONField(null=True)

    class Meta:
        app_label = "tests"


class ThingView(models.Model):  # noqa: DJ008
    """The same, and nothing may be NULL."""

    text = models.CharField(max_length=50)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    count = models.PositiveIntegerField()
    at = models.DateTimeField()
    day = models.DateField()
    key = models.UUIDField()
    flag = models.BooleanField()
    number = models.BigIntegerField()
    parent = models.ForeignKey(Thing, models.DO_NOTHING)
    ratio = models.FloatField()

    class Meta:
        app_label = "tests"
        managed = False
        db_table = "view_of_things"


@pytest.fixture
def table(transactional_db: None) -> Iterator[None]:
    with connection.schema_editor() as editor:
        editor.create_model(Thing)
    yield
    with connection.schema_editor() as editor:
        editor.delete_model(Thing)


@pytest.fixture
def sqlite(table: None) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("other databases have a type for it")


def written(
    names: Sequence[str] = FIELDS, rows: QuerySet[Any] | None = None, size: int = 2
) -> list[str] | None:
    """As the database has it, in pages; None where it leaves one to Python."""
    lines = Lines.of(Thing.objects.all() if rows is None else rows, names)
    if lines is None:
        return None
    text, last, got = "", None, size
    while got == size:
        page = lines.fetch(last, size)
        if page is None:
            return None
        assert page.data.count(b"\n") == page.rows
        text, last, got = text + page.data.decode(), page.last, page.rows
    return text.split("\n")[:-1]


def sent(names: Sequence[str] = FIELDS) -> list[str]:
    """As a response has it, whoever writes it."""

    async def body() -> bytes:
        response = NDJSONResponse(Thing.objects.all(), fields=names)
        return b"".join([part async for part in response])

    return async_to_sync(body)().decode().split("\n")[:-1]


def standard(names: Sequence[str] = FIELDS) -> list[str]:
    """As Django has it."""
    rows = Thing.objects.order_by("pk").values(*names)
    return encode_lines(rows).decode().split("\n")[:-1]


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
@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
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


EDGES = [
    {"at": datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)},
    {"at": datetime.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=datetime.UTC)},
    {"at": datetime.datetime(2025, 1, 1, 0, 0, 0, 5, tzinfo=datetime.UTC)},
    {"at": datetime.datetime(2025, 1, 1, 0, 0, 0, 500_000, tzinfo=datetime.UTC)},
    {"at": datetime.datetime(2025, 1, 1, 0, 0, 0, 999_999, tzinfo=datetime.UTC)},
    {"day": datetime.date(1, 1, 1)},
    {"day": datetime.date(9999, 12, 31)},
    {"price": decimal.Decimal("-0.01")},
    {"price": decimal.Decimal("99999999.99")},
    {"price": decimal.Decimal("-99999999.99")},
    {"price": decimal.Decimal("0")},
    {"number": -(2**63)},
    {"number": 2**63 - 1},
    {"key": uuid.UUID(int=0), "text": ""},
    {"key": uuid.UUID(int=2**128 - 1)},
    {"text": '"\\\n\t\b\f\r\x7f\x01\x1f \u2028 100% %s {} 東京'},
    {"text": "null"},
]


@pytest.mark.parametrize("row", EDGES, ids=str)
def test_edges(table, row):
    Thing.objects.create(**row)
    assert written() == standard()


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


def test_a_field_of_the_sites_own_may_mean_anything(table, monkeypatch):
    class Secret(models.CharField):  # type: ignore[type-arg]
        pass

    monkeypatch.setattr(Thing._meta.get_field("text"), "__class__", Secret)
    assert Lines.of(Thing.objects.all(), ("text",)) is None


def test_a_foreign_key_of_the_sites_own_too(table, monkeypatch):
    class Masked(models.ForeignKey):  # type: ignore[type-arg]
        pass

    monkeypatch.setattr(Thing._meta.get_field("parent"), "__class__", Masked)
    assert Lines.of(Thing.objects.all(), ("parent_id",)) is None


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


@pytest.mark.parametrize(
    ("column", "stored"),
    [
        ("at", "2025-01-01T00:00:00Z"),
        ("at", "2025-01-01 00:00:00.5"),
        ("at", "2025-01-01 00:00:00.000000"),
        ("at", "2025-01-01 00:00:00 +00:00"),
        ("at", "2025-01-01 00:00:00,123456"),
        ("at", "2025-01-01 00:00+01"),
        ("at", ""),
        ("at", ","),
        ("at", "2025-01-01 00:00:00,2025-01-01 00:00:00"),
        ("at", "\x01"),
        ("day", "\x01"),
        ("day", "2025-1-1"),
        ("day", "01/02/2025"),
        ("day", 1735689600),
        ("day", '2025"01-01'),
        ("day", "2025-01-01\n2025-01-01"),
        ("price", 10.945),  # a tie that Django rounds by its digits, SQLite by the number
        ("price", -0.005),
        ("number", 1.5),
        ("number", "many"),
        ("count", 0.5),
        ("flag", 2),
        ("key", "ABCDEF" + "0" * 26),
        ("key", "12345678-1234-1234-1234-123456789012"),
        ("parent_id", 1.5),
        ("parent_id", "nobody"),
    ],
)
def test_what_django_did_not_store_so_is_left_to_python(sqlite, column, stored):
    Thing.objects.create(text="a")
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA foreign_keys = OFF")
        cursor.execute(f"UPDATE {Thing._meta.db_table} SET {column} = %s", [stored])
        cursor.execute("PRAGMA foreign_keys = ON")
    for names in (FIELDS, (*FIELDS, "ratio")):
        assert written(names) is None
        try:
            wanted = standard(names)
        except ValueError:
            continue
        assert sent(names) == wanted


def test_two_values_in_one_and_none_in_the_next(sqlite):
    Thing.objects.create()
    Thing.objects.create()
    for stored in (["2025-01-01,2025-01-02", "\x01"], ["\x01", "2025-01-01,2025-01-02"]):
        for pk, value in zip(
            Thing.objects.order_by("pk").values_list("pk", flat=True), stored, strict=True
        ):
            with connection.cursor() as cursor:
                cursor.execute(
                    f"UPDATE {Thing._meta.db_table} SET day = %s WHERE id = %s", [value, pk]
                )
        assert written(("id", "day")) is None
        assert written(("id", "day", "ratio")) is None


def test_a_text_that_is_none_is_left_to_python(sqlite):
    Thing.objects.create()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {Thing._meta.db_table} SET text = CAST(x'ff41' AS TEXT)")
    assert written(("id", "text")) is None


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


@pytest.mark.parametrize("names", [FIELDS, (*FIELDS, "ratio")], ids=["all", "a part"])
def test_a_view_may_have_nothing_where_its_model_says_something(table, names):
    """The columns of a view, or of a table of others, are as they are."""
    Thing.objects.create()
    empty = {"sqlite": "NULL", "postgresql": "NULL::{}"}[connection.vendor]
    kinds = {
        "id": "bigint",
        "text": "varchar",
        "price": "numeric",
        "count": "integer",
        "at": "timestamptz",
        "day": "date",
        "key": "uuid",
        "flag": "boolean",
        "number": "bigint",
        "parent_id": "bigint",
        "ratio": "float",
    }
    for name in names[1:]:
        columns = ", ".join(
            f"{empty.format(kinds[each]) if each == name else _some(each)} AS {each}"
            for each in names
        )
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE VIEW view_of_things AS SELECT {columns}")
        try:
            rows = ThingView.objects.all()
            wanted = encode_lines(ThingView.objects.order_by("pk").values(*names)).decode()
            found = written(names, rows)
            assert found in (None, wanted.split("\n")[:-1]), name
            assert f'"{name}":null' in wanted
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP VIEW view_of_things")


@pytest.mark.parametrize(
    "rows",
    [
        "SELECT 1 AS id, '2025-01-01,2025-01-02' AS day UNION ALL SELECT 2, NULL",
        "SELECT 'one' AS id, '2025-01-01' AS day",
    ],
    ids=["two days in one row and none in the other", "a key that is none"],
)
def test_a_view_of_strange_values_is_left_to_python(sqlite, rows):
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE VIEW view_of_things AS {rows}")
    try:
        assert written(("id", "day"), ThingView.objects.all()) is None
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP VIEW view_of_things")


def _some(name: str) -> str:
    """A value as Django stores it."""
    values = {
        "id": "1",
        "text": "'a'",
        "price": "1.5",
        "count": "1",
        "at": "'2025-01-01 00:00:00'",
        "day": "'2025-01-01'",
        "key": f"'{'0' * 32}'",
        "number": "1",
        "parent_id": "1",
        "flag": "1",
        "ratio": "0.5",
    }
    kinds = {"at": "timestamptz", "day": "date", "key": "uuid", "flag": "boolean", "text": "text"}
    value = values[name]
    if connection.vendor == "postgresql" and name in kinds:
        return f"CAST({value} AS {kinds[name]})"
    return value


def test_a_nul_in_a_text(sqlite):
    Thing.objects.create(text="a\0b")
    assert written(("text",)) == standard(("text",)) == ['{"text":"a\\u0000b"}']


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


def test_datetimes_that_are_not_in_utc_are_left_to_python(table, settings, monkeypatch):
    Thing.objects.create(at=EDGES[0]["at"])
    assert written(("at",)) is not None
    with monkeypatch.context() as patch:
        patch.setattr(connection, "timezone_name", "Europe/Berlin")
        assert written(("at",)) is None
        assert written(("id",)) is not None
    settings.USE_TZ = False
    assert written(("at",)) is None


def test_events_of_the_log(table):
    assert Lines.of(Event.objects.all(), ("id", "offset", "type", "data")) is not None
