"""What may be opened by a name that somebody else chose, and what must not."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from django.core.files.storage import FileSystemStorage
from django.http import Http404

from realtime.streaming.sources import LocalFile, guess_type, open_now, open_stored

from ..support.streaming import client, streaming_site


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    with streaming_site(_site_template) as site:
        (site.files / "body.bin").write_bytes(b"body")
        (site.files / "letters.txt").write_text("abcdefghijklmnopqrstuvwxyz")
        yield site


def raw(here: Any, path: str) -> int:
    """The status for a path that no client library would send."""
    with client(here) as connection:
        connection.request(path)
        return connection.head().status


@pytest.fixture(scope="module")
def _traps(here: Any) -> Iterator[None]:
    outside = here.files.parent / "secret.txt"
    outside.write_text("not for you")
    (here.files / "folder").mkdir()
    (here.files / "folder" / "inside.txt").write_text("inside")
    (here.files / "escape.txt").symlink_to(outside)
    (here.files / "out").symlink_to(here.files.parent)
    (here.files / "within.txt").symlink_to("letters.txt")
    (here.files / "loop").symlink_to("loop")
    (here.files / "dangling").symlink_to("nothing")
    (here.files / ".hidden").write_text("hidden")
    (here.files / "shown.txt").symlink_to(".hidden")
    (here.files / ".git").mkdir()
    (here.files / ".git" / "config").write_text("hidden")
    (here.files / "git").symlink_to(".git")
    (here.files / "nul.txt").write_text("a device on Windows")
    os.mkfifo(here.files / "pipe")
    (here.files / "files-evil").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        where = os.getcwd()
        os.chdir(here.files)  # the path of a socket is short
        try:
            listener.bind("socket")
        finally:
            os.chdir(where)
        yield


BAD = [
    "..%2fsecret.txt",
    "%2e%2e%2fsecret.txt",
    "%2e%2e",
    ".",
    "..%5csecret.txt",
    "%2fetc%2fpasswd",
    "%2f%2fetc%2fpasswd",
    "escape.txt",
    "out%2fsecret.txt",
    "loop",
    "dangling",
    ".hidden",
    "shown.txt",
    "git%2fconfig",
    "letters.txt%00",
    "%00",
    "letters.txt%00.jpg",
    "folder",
    "folder%2f",
    "pipe",
    "socket",
    "nul.txt",
    "CON",
    "aux.log",
    "com1",
    "LPT9.txt",
    "missing.txt",
    "letters.txt%2f",
    "a" * 300,
    "%ff%fe",
    "letters.txt%0a",
    "body.bin%20",
]


@pytest.mark.parametrize("name", BAD)
@pytest.mark.usefixtures("_traps")
def test_names_that_are_refused(here, name):
    assert raw(here, f"/download/{name}") == 404
    if name not in (
        "escape.txt",
        "shown.txt",
        "git%2fconfig",
    ):  # a storage's own links are its own affair
        assert raw(here, f"/tests/stored/local/{name}") == 404


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/passwd", "folder/../../secret.txt"])
@pytest.mark.usefixtures("_traps")
def test_paths_that_are_refused(here, name):
    assert raw(here, f"/download/{name}") == 404
    with pytest.raises(Http404):
        open_now(here.files, name)


@pytest.mark.usefixtures("_traps")
def test_links_and_folders_within_the_root_are_fine(here):
    assert httpx.get(f"{here.url}/download/within.txt").text == "abcdefghijklmnopqrstuvwxyz"
    source = open_now(here.files, "folder/inside.txt")
    assert source.read(0, 100) == b"inside"
    assert source.location == "folder/inside.txt"
    source.close()
    link = here.files.parent / "link-to-files"
    link.symlink_to(here.files)
    open_now(link, "letters.txt").close()


def test_a_root_that_is_missing(tmp_path):
    with pytest.raises(Http404):
        open_now(tmp_path / "missing", "a")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", "text/plain"),
        ("a.tar.gz", "application/gzip"),
        ("a.svgz", "application/gzip"),
        ("a.unknown", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_types(name, kind):
    assert guess_type(name) == kind


async def test_storages(tmp_path):
    (tmp_path / "a.txt").write_text("abc")
    storage = FileSystemStorage(tmp_path)
    source = await open_stored(storage, "a.txt")
    assert isinstance(source, LocalFile)
    assert source.read(1, 10) == b"bc"
    source.close()
    assert source.read(1, 10) == b""
    for name in ("missing", "../a.txt", "/etc/passwd", "a.txt/b"):
        with pytest.raises(Http404):
            await open_stored(storage, name)


def test_a_source_that_nobody_closed_costs_no_descriptor(tmp_path):
    Path(tmp_path, "a.txt").write_text("abc")
    fileno = open_now(tmp_path, "a.txt").fileno()
    assert fileno is not None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fileno)
