"""CSV and ZIP: what spreadsheets and archivers read, made in constant memory."""

import csv
import datetime
import decimal
import io
import time
import zipfile
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from django.http import Http404

from realtime.streaming.exports import CSVResponse, Member, ZipResponse, encode_csv, files_below
from realtime.streaming.files import open_now

from ..support.servers import wait_until
from ..support.streaming import (
    MIB,
    client,
    fill_items,
    memory,
    open_files,
    read_away,
    streaming_site,
)

ITEMS = 3_000


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    with streaming_site(_site_template) as site:
        fill_items(site, ITEMS)
        (site.files / "a.txt").write_text("a" * 100_000)
        (site.files / "sub").mkdir()
        (site.files / "sub" / "Grüße.txt").write_text("b")
        (site.files / ".hidden").write_text("c")
        (site.files / "link.txt").symlink_to("/etc/passwd")
        yield site


async def body_of(response: Any) -> bytes:
    return b"".join([part async for part in response])


# -- CSV


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


# -- ZIP


def test_an_archive(here):
    answer = httpx.get(f"{here.url}/export/files.zip")
    assert answer.headers["content-type"] == "application/zip"
    assert int(answer.headers["content-length"]) == len(answer.content)
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    assert archive.namelist() == ["a.txt", "sub/Grüße.txt"]
    assert archive.read("a.txt") == b"a" * 100_000


def test_a_compressed_archive(here):
    answer = httpx.get(f"{here.url}/tests/zip-compressed")
    assert "content-length" not in answer.headers
    assert len(answer.content) < 5_000
    assert zipfile.ZipFile(io.BytesIO(answer.content)).read("a.txt") == b"a" * 100_000


async def test_an_empty_archive(tmp_path):
    response = ZipResponse(await files_below(tmp_path))
    assert zipfile.ZipFile(io.BytesIO(await body_of(response))).namelist() == []


async def test_members_of_unknown_size(tmp_path):
    (tmp_path / "a.txt").write_text("abc")
    response = ZipResponse([Member("b.txt", lambda: open_now(tmp_path, "a.txt"))])
    assert not response.has_header("Content-Length")
    assert zipfile.ZipFile(io.BytesIO(await body_of(response))).read("b.txt") == b"abc"


async def test_a_file_that_shrinks_or_vanishes_cuts_the_archive(tmp_path):
    for change in (lambda path: path.write_text("a"), lambda path: path.unlink()):
        path = tmp_path / "a.txt"
        path.write_text("abc")
        response = ZipResponse(await files_below(tmp_path))
        change(path)
        with pytest.raises((EOFError, Http404), match=r"shorter|no file"):
            await body_of(response)


async def test_a_file_that_grows_is_cut_to_what_was_said(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("abc")
    response = ZipResponse(await files_below(tmp_path))
    path.write_text("abcdef")
    assert zipfile.ZipFile(io.BytesIO(await body_of(response))).read("a.txt") == b"abc"


def test_a_large_archive_in_constant_memory(here):
    with (here.files / "large.bin").open("wb") as file:
        file.truncate(1024 * MIB)  # sparse
    try:
        httpx.get(f"{here.url}/export/items.csv")  # what is made once
        before = most = memory(here.pid)
        with client(here) as connection:
            connection.request("/export/files.zip")
            length = int(connection.head().headers["content-length"])
            read = 0
            while read < length:
                read += read_away(connection, min(128 * MIB, length - read))
                most = max(most, memory(here.pid))
        assert length > 1024 * MIB
        assert most - before < 32 * MIB
    finally:
        (here.files / "large.bin").unlink()


def test_a_client_that_leaves_closes_the_member_within_a_second(here):
    with (here.files / "large.bin").open("wb") as file:
        file.truncate(1024 * MIB)
    try:
        with client(here, receive_buffer=4096) as connection:
            connection.request("/export/files.zip")
            connection.head()
            wait_until(lambda: open_files(here.pid, "large.bin"), 3)
        started = time.monotonic()
        wait_until(lambda: not open_files(here.pid, "large.bin"), 3)
        assert time.monotonic() - started < 1
    finally:
        (here.files / "large.bin").unlink()
