"""What the database writes of a value is what Python would have written; else Python does."""

import datetime
import decimal
import uuid

import pytest
from django.db import connection, models

from realtime.streaming.json_columns import encode_lines
from realtime.streaming.sql_json import Lines

from .support import FIELDS, Thing, ThingView, sent, standard, written

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
        ("at", "null"),
        ("day", "null"),
        ("key", "null"),
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
    for stored in (["2025-01-01,2025-01-02", "null"], ["null", "2025-01-01,2025-01-02"]):
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


@pytest.mark.parametrize("names", [FIELDS, (*FIELDS, "ratio")], ids=["all", "a part"])
def test_a_view_may_have_nulls_where_its_model_allows_none(table, names):
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


def test_a_nul_in_a_text(sqlite):
    Thing.objects.create(text="a\0b")
    assert written(("text",)) == standard(("text",)) == ['{"text":"a\\u0000b"}']


def test_datetimes_that_are_not_in_utc_are_left_to_python(table, settings, monkeypatch):
    Thing.objects.create(at=EDGES[0]["at"])
    assert written(("at",)) is not None
    with monkeypatch.context() as patch:
        patch.setattr(connection, "timezone_name", "Europe/Berlin")
        assert written(("at",)) is None
        assert written(("id",)) is not None
    settings.USE_TZ = False
    assert written(("at",)) is None
