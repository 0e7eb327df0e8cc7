"""What the database says in text is what Python would have written; else Python writes it."""

import datetime
import decimal
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, models
from django.db.models import F
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from realtime.columns import Columns
from realtime.wire.ndjson import encode_lines

FIELDS = ("id", "text", "price", "tiny", "wide", "at", "day", "key", "flag", "ratio", "data")


class Thing(models.Model):  # noqa: DJ008
    """A column of each kind, all of which may be NULL."""

    text = models.CharField(max_length=50, null=True)  # noqa: DJ001
    price = models.DecimalField(max_digits=10, decimal_places=2, null=True)
    tiny = models.DecimalField(max_digits=12, decimal_places=9, null=True)
    wide = models.DecimalField(max_digits=30, decimal_places=4, null=True)
    at = models.DateTimeField(null=True)
    day = models.DateField(null=True)
    key = models.UUIDField(null=True)
    flag = models.BooleanField(null=True)
    ratio = models.FloatField(null=True)
    data = models.JSONField(null=True)

    class Meta:
        app_label = "tests"


@pytest.fixture
def table(transactional_db: None) -> Iterator[None]:
    with connection.schema_editor() as editor:
        editor.create_model(Thing)
    yield
    with connection.schema_editor() as editor:
        editor.delete_model(Thing)


def lines(fields: tuple[str, ...] = FIELDS) -> list[Any]:
    """As the columns have it."""
    things = Thing.objects.order_by("pk")
    rows, page = Columns(things, fields).fetch(things)
    assert [row[-1] for row in rows] == list(things.values_list("pk", flat=True))
    return page.decode().splitlines()


def standard(fields: tuple[str, ...] = FIELDS) -> list[Any]:
    """As Django has it."""
    return encode_lines(Thing.objects.order_by("pk").values(*fields)).decode().splitlines()


def decimals(digits: int, places: int) -> Any:
    most = decimal.Decimal(10) ** (digits - places) - 1
    return st.decimals(-most, most, places=places)


rows = st.fixed_dictionaries(
    {},
    optional={
        "text": st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20
        ),
        "price": decimals(10, 2),
        "tiny": decimals(12, 9),
        "wide": decimals(14, 4),
        "at": st.datetimes(timezones=st.just(datetime.UTC)),
        "day": st.dates(),
        "key": st.uuids(),
        "flag": st.booleans(),
        "ratio": st.floats(-1e6, 1e6),
        "data": st.lists(st.integers(0, 9), max_size=3),
    },
)


@given(st.lists(rows, max_size=4))
@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_lines_are_those_of_django(table, given_rows):
    Thing.objects.all().delete()
    Thing.objects.bulk_create([Thing(**row) for row in given_rows])
    assert lines() == standard()


EDGES = [
    {"at": datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)},
    {"at": datetime.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=datetime.UTC)},
    {"at": datetime.datetime(2025, 1, 1, 0, 0, 0, 5, tzinfo=datetime.UTC)},
    {"at": datetime.datetime(2025, 1, 1, 0, 0, 0, 500_000, tzinfo=datetime.UTC)},
    {"price": decimal.Decimal("-0.01"), "tiny": decimal.Decimal("0.000000001")},
    {"price": decimal.Decimal("99999999.99")},
    {"price": decimal.Decimal("0"), "wide": decimal.Decimal("12345678901234567890.1234")},
    {"key": uuid.UUID(int=0), "text": ""},
    {"text": '"\\\n\t\b\f\x7f\x01 \u2028 100% 東京'},
]


@pytest.mark.parametrize("row", EDGES, ids=str)
def test_edges(table, row):
    Thing.objects.create(**row)
    assert lines() == standard()


def test_fields_by_other_names(table):
    Thing.objects.create(text="a")
    assert json.loads(lines(("pk", "text"))[0]) == {"pk": Thing.objects.get().pk, "text": "a"}
    things = Thing.objects.annotate(shout=F("text"))
    _, page = Columns(things, ("shout",)).fetch(things)
    assert page == b'{"shout":"a"}\n'


@pytest.mark.parametrize("stored", ["2025-01-01T00:00:00Z", "2025-01-01 00:00:00.5"])
def test_what_django_did_not_write_is_read_the_general_way(table, stored):
    if connection.vendor != "sqlite":
        pytest.skip("other databases have a type for it")
    Thing.objects.create(text="a")
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {Thing._meta.db_table} SET at = %s, price = '1.5'", [stored])
    assert lines() == standard()


def test_without_time_zones_nothing_is_assumed(table, settings):
    Thing.objects.create(at=EDGES[0]["at"])
    settings.USE_TZ = False
    assert lines(("at",)) == standard(("at",))
