"""CSV: what spreadsheets read, made in constant memory."""

import csv
import datetime
import decimal
import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from realtime.streaming.csv_export import CSVResponse, encode_csv

from ..support.streaming import fill_items, streaming_site

ITEMS = 3_000


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    with streaming_site(_site_template) as site:
        fill_items(site, ITEMS)
        yield site


async def body_of(response: Any) -> bytes:
    return b"".join([part async for part in response])


def test_a_table(here):
    answer = httpx.get(f"{here.url}/export/items.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="items.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert len(rows) == ITEMS
    assert rows[0]["id"] == "1"
    assert rows[0]["price"] == "79.19"
    assert rows[0]["uuid"] == "00000000-0000-0000-0000-000000000001"
    assert rows[0]["created"] == "2025-01-01 00:00:00+00:00"


def test_a_table_in_another_order(here):
    answer = httpx.get(f"{here.url}/tests/csv-by-cursor")
    rows = list(csv.reader(io.StringIO(answer.text, newline="")))
    assert rows[0] == ["id", "name"]
    assert len(rows) == ITEMS + 1


def test_what_needs_quotes():
    row = ['say "hi"', "a,b", "line\nbreak", "", None, "東京"]
    text = encode_csv([row], len(row)).decode()
    assert next(csv.reader(io.StringIO(text, newline=""))) == [*row[:4], "", "東京"]
    assert text.endswith("\r\n")


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\uff1d1"]
)
def test_formulas_are_text_if_wanted(cell):
    def written(escape: bool) -> Any:
        text = encode_csv([[cell]], 1, escape).decode()
        return next(csv.reader(io.StringIO(text, newline="")))[0]

    assert written(False) == cell
    assert written(True) == f"'{cell}"


def test_half_of_a_surrogate_pair_is_escaped():
    assert encode_csv([["a\ud83d", "🐎"]], 2) == "a\\ud83d,🐎\r\n".encode()


def test_numbers_are_no_formulas():
    row = [-5, decimal.Decimal("-1.50"), datetime.date(2025, 1, 1), "a=b", "5-3"]
    assert encode_csv([row], 5, True) == b"-5,-1.50,2025-01-01,a=b,5-3\r\n"


@pytest.mark.parametrize("source", [[1], iter([1]), "text"])
def test_what_is_no_queryset(source):
    with pytest.raises(TypeError, match="queryset"):
        CSVResponse(source, fields=["a"])


@pytest.mark.django_db(transaction=True)
async def test_a_bom_for_excel():
    from django.contrib.auth.models import Group

    body = await body_of(CSVResponse(Group.objects.all(), fields=["id"], bom=True))
    assert body == b"\xef\xbb\xbfid\r\n"
