"""Row 14 on the real site: what `/download/` and `/export/` say; the rest is tests/test_files."""

import io
import zipfile
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from ..support.servers import manage
from ..support.streaming import fill_items, streaming_site

FILES = ("hello.txt", 'Grüße "from" 東京 & elsewhere.txt', "tone.wav", "ten-megabytes.txt")


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    with streaming_site(_site_template) as site:
        yield site


@pytest.fixture(autouse=True, scope="module")
def _samples(here: Any) -> None:
    command = "from project.demo.samples import *; make_files(__import__('pathlib').Path('{}'))"
    manage("shell", "--no-imports", "-c", command.format(here.files), env=here.env)
    fill_items(here, 10)


@pytest.mark.parametrize("name", FILES)
def test_the_sample_files(here, name):
    path = here.files / name
    answer = httpx.get(f"{here.url}/download/{quote(name)}")
    assert answer.status_code == 200
    assert answer.content == path.read_bytes()
    assert answer.headers["content-disposition"].startswith("attachment")


def test_a_range_has_the_bytes_at_its_offset(here):
    url = f"{here.url}/download/ten-megabytes.txt"
    answer = httpx.get(url, headers={"Range": "bytes=6400-6463"})
    assert answer.status_code == 206
    assert answer.text.startswith("byte       6400")


def test_other_methods_and_names(here):
    assert httpx.delete(f"{here.url}/download/hello.txt").status_code == 405
    assert httpx.get(f"{here.url}/download/nothing.txt").status_code == 404
    assert httpx.get(f"{here.url}/download/").status_code == 404


def test_exports(here):
    table = httpx.get(f"{here.url}/export/items.csv").text.splitlines()
    assert len(table) == 11
    assert table[0] == "id,name,price,created,uuid"
    archive = zipfile.ZipFile(io.BytesIO(httpx.get(f"{here.url}/export/files.zip").content))
    assert set(archive.namelist()) == set(FILES)
    for path in ("items.csv", "files.zip"):
        assert httpx.post(f"{here.url}/export/{path}").status_code == 405
