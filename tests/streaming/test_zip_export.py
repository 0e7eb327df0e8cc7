"""ZIP: what archivers read, made in constant memory."""

import asyncio
import io
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from django.http import Http404

import realtime
from realtime.streaming.sources import open_now
from realtime.streaming.zip_export import Member, ZipResponse, files_below, in_pieces

from ..support.attempts import three_tries
from ..support.clients import eventually
from ..support.servers import wait_until
from ..support.streaming import MIB, client, memory, open_files, read_away, streaming_site


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    with streaming_site(_site_template) as site:
        (site.files / "a.txt").write_text("a" * 100_000)
        (site.files / "sub").mkdir()
        (site.files / "sub" / "Grüße.txt").write_text("b")
        (site.files / ".hidden").write_text("c")
        (site.files / "link.txt").symlink_to("/etc/passwd")
        yield site


async def body_of(response: Any) -> bytes:
    return b"".join([part async for part in response])


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


async def test_names_that_are_not_utf8_have_replacement_characters(tmp_path):
    for name in (b"a.txt", b"b\xff.txt", b"b\xfe.txt", "Grüße😀.txt".encode()):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            file.write(name)
    body = await body_of(ZipResponse(await files_below(tmp_path)))
    archive = zipfile.ZipFile(io.BytesIO(body))
    assert archive.testzip() is None
    names = ["Grüße😀.txt", "a.txt", "b\ufffd.txt", "b\ufffd.txt"]
    assert sorted(archive.namelist()) == names
    assert {archive.read(each) for each in archive.infolist()} >= {b"b\xff.txt", b"b\xfe.txt"}


async def test_an_empty_archive(tmp_path):
    response = ZipResponse(await files_below(tmp_path))
    assert zipfile.ZipFile(io.BytesIO(await body_of(response))).namelist() == []


async def test_members_of_unknown_size(tmp_path):
    (tmp_path / "a.txt").write_text("abc")
    response = ZipResponse([Member("b.txt", lambda: open_now(tmp_path, "a.txt"))])
    assert not response.has_header("Content-Length")
    assert zipfile.ZipFile(io.BytesIO(await body_of(response))).read("b.txt") == b"abc"


class Digits:
    """What a member of a site's own opens."""

    size = 10
    is_closed = False

    def read(self, offset: int, size: int) -> bytes:
        return b"0123456789"[offset : offset + size]

    def close(self) -> None:
        self.is_closed = True


async def test_an_archive_takes_members_that_a_site_makes_itself():
    digits = Digits()
    response = realtime.ZipResponse([realtime.Member("digits.txt", lambda: digits)])
    archive = zipfile.ZipFile(io.BytesIO(await body_of(response)))
    assert archive.read("digits.txt") == b"0123456789"
    assert digits.is_closed


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

    def leave() -> None:
        with client(here, receive_buffer=4096) as connection:
            connection.request("/export/files.zip")
            connection.head()
            wait_until(lambda: open_files(here.pid, "large.bin"))
        started = time.monotonic()
        wait_until(lambda: not open_files(here.pid, "large.bin"))
        assert time.monotonic() - started < 1

    try:
        three_tries(leave)
    finally:
        (here.files / "large.bin").unlink()


# -- pieces of an iterator


async def test_pieces_of_about_a_size():
    parts = [part async for part in in_pieces(iter([b"ab"] * 10), 5)]
    assert b"".join(parts) == b"ab" * 10
    assert [len(part) for part in parts] == [6, 6, 6, 2]
    assert [part async for part in in_pieces(iter([]), 5)] == []


async def test_the_iterator_is_closed_when_its_reader_stops():
    closed: list[str] = []

    def endless():
        try:
            while True:
                yield b"x"
        finally:
            closed.append(threading.current_thread().name)

    pieces = in_pieces(endless(), 10)
    assert await anext(pieces) == b"x" * 10
    await pieces.aclose()
    await eventually(lambda: closed)
    assert closed[0].startswith("realtime-transfer")


async def test_the_iterator_is_closed_after_the_thread_that_is_still_in_it():
    closed: list[bool] = []
    inside, go_on = threading.Event(), threading.Event()

    def slow():
        try:
            inside.set()
            go_on.wait(5)
            yield b"x"
        finally:
            closed.append(True)

    task = asyncio.create_task(anext(in_pieces(slow(), 10)))  # type: ignore[arg-type]
    await eventually(inside.is_set)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not closed
    go_on.set()
    await eventually(lambda: closed)
