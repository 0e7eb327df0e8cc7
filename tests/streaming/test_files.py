"""Files over real sockets: parts, conditions, names, what must not be served, what changes."""

import hashlib
import json
import os
import ssl
import time
from collections.abc import Iterator
from email.parser import BytesParser
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest
from django.contrib.auth.models import User
from django.core.files.storage import FileSystemStorage
from django.test import override_settings
from django.urls import path

from docs.examples import files_storage, files_view
from realtime.streaming.files import FileStreamResponse
from realtime.streaming.sources import open_file, open_now

from ..server.support import Client
from ..support.attempts import three_tries
from ..support.clients import bearer
from ..support.contents import REMOTE
from ..support.servers import certificate, free_port, wait_until
from ..support.streaming import MIB, client, memory, open_files, read_away, streaming_site

BODY = os.urandom(300_000)
# The kernel copies, chunks are read, a storage elsewhere is read: to a client all are the same.
WAYS = ["/download", "/tests/chunked", "/tests/stored/local", "/tests/stored/remote"]


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    with streaming_site(_site_template, {"MAX_RANGES": 5}) as site:
        (site.files / "body.bin").write_bytes(BODY)
        (site.files / "remote.bin").write_bytes(REMOTE)
        (site.files / "empty.txt").write_bytes(b"")
        (site.files / "letters.txt").write_text("abcdefghijklmnopqrstuvwxyz")
        with (site.files / "huge.bin").open("wb") as file:
            file.truncate(2048 * MIB)  # sparse
        yield site


@pytest.fixture(params=WAYS)
def url(request: pytest.FixtureRequest, here: Any) -> str:
    return f"{here.url}{request.param}/remote.bin"


def get(url: str, **headers: str) -> httpx.Response:
    return httpx.get(url, headers={k.replace("_", "-"): v for k, v in headers.items()}, timeout=20)


# -- whole files, and parts


def test_a_whole_file(url):
    answer = get(url)
    assert answer.status_code == 200
    assert answer.content == REMOTE
    assert answer.headers["content-length"] == str(len(REMOTE))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == 'attachment; filename="remote.bin"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "etag" in answer.headers
    assert "last-modified" in answer.headers


def test_head_is_the_same_without_a_body(url):
    whole, head = get(url), httpx.head(url)
    assert head.content == b""
    for name in ("content-length", "etag", "last-modified", "content-type", "accept-ranges"):
        assert head.headers[name] == whole.headers[name]
    assert httpx.head(url, headers={"Range": "bytes=0-5"}).status_code == 200  # only of GET


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-500000", 1000, 500_001),
        ("bytes=-10", MIB - 10, MIB),
        ("bytes=1048575-", MIB - 1, MIB),
        ("bytes=0-9999999", 0, MIB),
    ],
)
def test_one_part(url, header, start, stop):
    answer = get(url, Range=header)
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{MIB}"
    assert answer.content == REMOTE[start:stop]


def test_several_parts(url):
    answer = get(url, Range="bytes=500000-500099,0-9,-1")
    assert answer.status_code == 206
    assert "content-range" not in answer.headers
    assert int(answer.headers["content-length"]) == len(answer.content)
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    parts = BytesParser().parsebytes(head + answer.content).get_payload()
    found = [
        (part["Content-Range"], part.get_payload(decode=True))
        for part in parts  # type: ignore[union-attr]
    ]
    assert found == [
        (f"bytes 500000-500099/{MIB}", REMOTE[500_000:500_100]),
        (f"bytes 0-9/{MIB}", REMOTE[:10]),
        (f"bytes 1048575-1048575/{MIB}", REMOTE[-1:]),
    ]


def test_a_part_that_is_not_there(url):
    answer = get(url, Range="bytes=1048576-")
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{MIB}"
    assert answer.content == b""


@pytest.mark.parametrize("header", ["bytes=x", "lines=1-2", "bytes=3-1", "bytes=" + "0-0," * 6])
def test_parts_that_can_not_be_understood_are_ignored(url, header):
    answer = get(url, Range=header)
    assert answer.status_code == 200
    assert len(answer.content) == MIB


def test_two_requests_on_one_connection(here):
    with client(here) as connection:
        for _ in range(3):
            connection.request("/download/letters.txt", "Range: bytes=2-4")
            assert connection.response().body == b"cde"
            connection.request("/download/letters.txt", "Range: bytes=2-4,6-6")
            assert b"cde" in connection.response().body
            connection.request("/download/letters.txt", method="HEAD")
            assert connection.response(head=True).status == 200


def test_an_old_client(here):
    with client(here) as connection:
        connection.send(b"GET /download/body.bin HTTP/1.0\r\nHost: test\r\n\r\n")
        assert connection.head().headers["connection"] == "close"
        assert connection.rest() == BODY


def test_an_empty_file(here):
    answer = get(f"{here.url}/download/empty.txt")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "0"
    assert get(f"{here.url}/download/empty.txt", Range="bytes=0-").status_code == 416


# -- conditions


def test_what_has_not_changed(url):
    whole = get(url)
    etag, date = whole.headers["etag"], whole.headers["last-modified"]
    for headers in (
        {"If_None_Match": etag},
        {"If_None_Match": f'"other", W/{etag}'},
        {"If_None_Match": "*"},
        {"If_Modified_Since": date},
    ):
        answer = get(url, **headers)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
        assert "content-type" not in answer.headers
    assert get(url, If_None_Match='"other"').status_code == 200
    assert get(url, If_None_Match='"other"', If_Modified_Since=date).status_code == 200
    assert get(url, If_Modified_Since="nonsense").status_code == 200
    assert httpx.head(url, headers={"If-None-Match": etag}).status_code == 304


def test_what_is_wanted_only_unchanged(url):
    whole = get(url)
    etag, date = whole.headers["etag"], whole.headers["last-modified"]
    assert get(url, If_Match='"other"').status_code == 412
    assert get(url, If_Match=etag).status_code == 200
    old = "Sun, 06 Nov 1994 08:49:37 GMT"
    assert get(url, If_Unmodified_Since=old).status_code == 412
    assert get(url, If_Unmodified_Since=date).status_code == 200


def test_a_part_of_what_the_client_has_the_rest_of(here, url):
    os.utime(here.files / "remote.bin", (time.time() - 60, time.time() - 60))
    whole = get(url)
    etag, date = whole.headers["etag"], whole.headers["last-modified"]
    assert get(url, Range="bytes=0-4", If_Range=etag).status_code == 206
    assert get(url, Range="bytes=0-4", If_Range=date).status_code == 206
    for other in ('"other"', f"W/{etag}", "Sun, 06 Nov 1994 08:49:37 GMT", "nonsense"):
        answer = get(url, Range="bytes=0-4", If_Range=other)
        assert answer.status_code == 200
        assert len(answer.content) == MIB
    assert get(url, Range="bytes=99999999-", If_Range='"other"').status_code == 200


# -- names


NAMES = [
    "plain.txt",
    "two words.txt",
    'say "hi" there.txt',
    "Grüße, 東京 🎈.txt",
    "new\nline\r.txt",
    "semi;colon=%41'.txt",
    "\x7ftab\t.txt",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_survives(here, name):
    (here.files / name).write_text("x")
    answer = get(f"{here.url}/download/{quote(name, safe='')}")
    assert answer.status_code == 200
    header = answer.headers["content-disposition"]
    _, star, extended = header.partition("filename*=UTF-8''")
    assert (unquote(extended) if star else header.split('"')[1]) == name
    assert header.isascii()
    assert header.isprintable()


# -- files that change


@pytest.mark.parametrize("kind", ["kernel", "chunks"])
@pytest.mark.parametrize("size", [500_000, 30 * MIB])
def test_a_file_that_shrinks_cuts_the_connection(here, kind, size):
    here.server.expected += ["has become shorter than", "bytes before its part did"]
    (here.files / "shrinking.bin").write_bytes(b"x" * size)
    with client(here) as connection:
        connection.request(f"/tests/truncating/{kind}/shrinking.bin")
        head = connection.head()
        assert head.headers["content-length"] == str(size)
        assert connection.rest() == b"x" * 1000
    assert get(f"{here.url}/healthz").status_code == 200


@pytest.mark.parametrize("way", WAYS[:2])
def test_a_file_that_vanishes_or_is_replaced_is_still_whole(here, way):
    path = here.files / "vanishing.bin"
    body = os.urandom(1000) * 20_000
    path.write_bytes(body)
    with client(here, receive_buffer=4096) as connection:
        connection.request(f"{way}/vanishing.bin")
        connection.head()
        path.unlink()
        path.write_bytes(b"other")
        received = connection.exactly(len(body))
    assert hashlib.sha256(received).digest() == hashlib.sha256(body).digest()
    path.unlink()


@pytest.mark.parametrize("way", WAYS[:2])
def test_a_client_that_leaves_closes_the_file_within_a_second(here, way):
    def leave() -> None:
        with client(here, receive_buffer=4096) as connection:
            connection.request(f"{way}/huge.bin")
            connection.head()
            connection.exactly(1000)
            assert open_files(here.pid, "huge.bin") >= 1
        started = time.monotonic()
        wait_until(lambda: not open_files(here.pid, "huge.bin"))
        assert time.monotonic() - started < 1

    three_tries(leave)


def test_no_descriptor_is_left(here):
    for headers in ({}, {"If-None-Match": "*"}, {"Range": "bytes=999-"}, {"Range": "bytes=1-2"}):
        httpx.get(f"{here.url}/download/letters.txt", headers=headers)
        httpx.head(f"{here.url}/download/letters.txt", headers=headers)
    wait_until(lambda: not open_files(here.pid, "letters.txt"))
    before = httpx.get(f"{here.url}/tests/inside").json()["finished"].count("remote")
    httpx.get(f"{here.url}/tests/stored/remote/remote.bin")

    def closed() -> bool:
        inside = httpx.get(f"{here.url}/tests/inside").json()
        return inside["finished"].count("remote") == before + 1

    wait_until(closed)


# -- size and company


@pytest.mark.parametrize("way", WAYS[:2])
def test_two_gigabytes_in_constant_memory(here, way):
    httpx.get(f"{here.url}{way}/body.bin")
    before = most = memory(here.pid)
    with client(here) as connection:
        connection.request(f"{way}/huge.bin")
        assert connection.head().headers["content-length"] == str(2048 * MIB)
        for _ in range(16):
            assert read_away(connection, 128 * MIB) == 128 * MIB
            most = max(most, memory(here.pid))
    assert most - before < 32 * MIB


@pytest.mark.parametrize("way", WAYS[:2])
def test_stalled_downloads_hold_no_thread_and_little_memory(here, way):
    get(f"{here.url}{way}/letters.txt")  # what the first download makes once is not theirs
    before = memory(here.pid)
    connections = [client(here, receive_buffer=4096) for _ in range(20)]
    try:
        for connection in connections:
            connection.request(f"{way}/huge.bin")
            connection.head()
        time.sleep(0.5)
        assert get(f"{here.url}{way}/letters.txt").content == b"abcdefghijklmnopqrstuvwxyz"
        assert memory(here.pid) - before < 24 * MIB
    finally:
        for connection in connections:
            connection.close()


# -- over TLS, where the kernel can't copy


@pytest.fixture(scope="module")
def secure(
    _site_template: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleNamespace]:
    """A site that ends TLS by itself; `url` is that."""
    folder = tmp_path_factory.mktemp("tls")
    certificate(folder)
    port = free_port()
    endpoint = f"ssl:{port}:interface=127.0.0.1"
    endpoint += f":privateKey={folder}/key.pem:certKey={folder}/cert.pem"
    with streaming_site(_site_template, {}, "--", "-e", endpoint) as site:
        (site.files / "remote.bin").write_bytes(REMOTE)
        (site.files / "letters.txt").write_text("abcdefghijklmnopqrstuvwxyz")
        with (site.files / "huge.bin").open("wb") as file:
            file.truncate(2048 * MIB)  # sparse
        site.url, site.tls_port = f"https://localhost:{port}", port
        site.context = ssl.create_default_context(cafile=f"{folder}/cert.pem")
        yield site


def secure_client(secure: Any, receive_buffer: int = 0) -> Client:
    connection = Client(("127.0.0.1", secure.tls_port), receive_buffer=receive_buffer)
    connection.sock = secure.context.wrap_socket(
        connection.sock, server_hostname="localhost", suppress_ragged_eofs=False
    )
    return connection


def test_files_over_tls(secure):
    url = f"{secure.url}/download/remote.bin"
    with httpx.Client(verify=secure.context, timeout=20) as http:
        whole = http.get(url)
        assert (whole.status_code, whole.content) == (200, REMOTE)
        head = http.head(url)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-length", "etag", "last-modified", "accept-ranges"):
            assert head.headers[name] == whole.headers[name]
        for said, start, stop in [
            ("0-0", 0, 1),
            ("1000-300000", 1000, 300_001),  # across chunks
            ("-5", len(REMOTE) - 5, len(REMOTE)),
            (f"{len(REMOTE) - 1}-", len(REMOTE) - 1, len(REMOTE)),
        ]:
            part = http.get(url, headers={"Range": f"bytes={said}"})
            assert (part.status_code, part.content) == (206, REMOTE[start:stop])
            assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(REMOTE)}"
        several = http.get(url, headers={"Range": "bytes=0-9,700000-700009"})
        assert several.status_code == 206
        assert several.content.count(REMOTE[:10]) >= 1
        assert len(several.content) == int(several.headers["content-length"])
        gone = http.get(url, headers={"Range": f"bytes={len(REMOTE)}-"})
        assert (gone.status_code, gone.headers["content-range"]) == (416, f"bytes */{len(REMOTE)}")
        same = http.get(url, headers={"If-None-Match": whole.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")


def test_half_a_gigabyte_over_tls_in_constant_memory(secure):
    httpx.get(f"{secure.url}/download/remote.bin", verify=secure.context)
    before = most = memory(secure.pid)
    with secure_client(secure) as connection:
        connection.request("/download/huge.bin")
        assert connection.head().headers["content-length"] == str(2048 * MIB)
        for _ in range(16):
            assert read_away(connection, 32 * MIB) == 32 * MIB
            most = max(most, memory(secure.pid))
    assert most - before < 32 * MIB
    wait_until(lambda: not open_files(secure.pid, "huge.bin"))


def test_slow_readers_over_tls_hold_no_thread_and_little_memory(secure):
    httpx.get(f"{secure.url}/download/remote.bin", verify=secure.context)
    before = memory(secure.pid)
    connections = [secure_client(secure, receive_buffer=4096) for _ in range(20)]
    try:
        for connection in connections:
            connection.request("/download/huge.bin")
            connection.head()
        for _ in range(5):
            for connection in connections:
                connection.exactly(1_000)
            time.sleep(0.1)
        letters = httpx.get(f"{secure.url}/download/letters.txt", verify=secure.context)
        assert letters.content == b"abcdefghijklmnopqrstuvwxyz"
        assert memory(secure.pid) - before < 32 * MIB
    finally:
        for connection in connections:
            connection.close()
    wait_until(lambda: not open_files(secure.pid, "huge.bin"))


def test_a_client_that_leaves_over_tls_closes_the_file_within_a_second(secure):
    def leave() -> None:
        with secure_client(secure, receive_buffer=4096) as connection:
            connection.request("/download/huge.bin")
            connection.head()
            connection.exactly(1000)
            assert open_files(secure.pid, "huge.bin") == 1
        started = time.monotonic()
        wait_until(lambda: not open_files(secure.pid, "huge.bin"))
        assert time.monotonic() - started < 1

    three_tries(leave)


# -- a file that is in somebody's name


def read_until_revoked(site: Any, connection: Client, http: httpx.Client) -> int:
    """Begin a download of alice's, revoke her token, and read till the end: the bytes that came."""
    headers = bearer(site.shell.make_token("alice"))
    connection.request("/tests/private/huge.bin", f"Authorization: {headers['Authorization']}")
    assert connection.head().headers["content-length"] == str(2048 * MIB)
    site.shell.run("User.objects.get(username='alice').realtime_tokens.latest('pk').delete()")
    url = f"{site.url}/tests/private/letters.txt"
    wait_until(lambda: http.get(url, headers=headers).status_code == 401)
    count = len(connection.buffer)
    while data := connection.sock.recv(262_144):
        count += len(data)
        time.sleep(0.01)  # the server finds out in some seconds, and the whole file takes 80
    return count


def test_a_download_ends_when_its_user_loses_the_token(here):
    here.server.expected.append("The user of this stream has been signed out.")
    with client(here, receive_buffer=65_536) as connection, httpx.Client() as http:
        assert read_until_revoked(here, connection, http) < 2048 * MIB
    wait_until(lambda: not open_files(here.pid, "huge.bin"))


def test_a_download_over_tls_ends_when_its_user_loses_the_token(secure):
    secure.server.expected.append("The user of this stream has been signed out.")
    with (
        secure_client(secure, receive_buffer=65_536) as connection,
        httpx.Client(verify=secure.context) as http,
        pytest.raises((ssl.SSLEOFError, ConnectionResetError)),  # cut
    ):
        read_until_revoked(secure, connection, http)
    wait_until(lambda: not open_files(secure.pid, "huge.bin"))


# -- bodies that others touch


def test_a_body_that_middleware_wraps_is_read_by_chunks(here):
    assert get(f"{here.url}/tests/wrapped/letters.txt").text == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


# -- in this process


class Part(bytes):
    """What the server offers; here it goes astray."""

    def revoke(self) -> bool:
        return True


async def test_a_part_that_never_arrives_is_read_by_chunks(rf, tmp_path):
    (tmp_path / "a.txt").write_text("abc")
    request = rf.get("/")
    request.scope = {"extensions": {"realtime.sendfile": {"part": lambda *_: Part()}}}
    response = FileStreamResponse(request, await open_file(tmp_path, "a.txt"))
    assert b"".join([part async for part in response]) == b"abc"


@pytest.mark.parametrize("source", ["name", b"bytes", iter([b"a"])])
def test_what_is_no_source(rf, source):
    with pytest.raises(TypeError, match="open_file"):
        FileStreamResponse(rf.get("/"), source)


def test_nginx_sends_it(rf, tmp_path):
    (tmp_path / "a b%.txt").write_text("abc")
    with override_settings(REALTIME={"ACCEL_REDIRECT": "/protected/"}):
        source = open_now(tmp_path, "a b%.txt")
        response = FileStreamResponse(rf.get("/", HTTP_RANGE="bytes=0-1"), source)
    assert response.status_code == 200
    assert response["X-Accel-Redirect"] == "/protected/a%20b%25.txt"
    assert response["Content-Type"] == "text/plain"
    assert "attachment" in response["Content-Disposition"]
    assert not response.has_header("Content-Encoding")
    source.close()


def test_errors_are_json_like_all_others(here):
    answer = httpx.post(f"{here.url}/download/letters.txt")
    assert answer.status_code in (403, 405)
    assert json.loads(answer.text)["detail"]


# -- the examples in docs/files.md

urlpatterns = [path("upload/<name>", files_storage.upload)]


@pytest.mark.django_db(transaction=True)
async def test_the_examples(async_rf, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("abc")
    monkeypatch.setattr(files_view, "REPORTS", str(tmp_path))
    request = async_rf.get("/")
    assert await body_of(await files_view.report(request, "a.txt")) == b"abc"
    assert b"abc" in await body_of(await files_view.all_reports(request))
    assert await body_of(await files_view.groups(request)) == b"id,name\r\n"


@pytest.mark.django_db(transaction=True)
@override_settings(ROOT_URLCONF="tests.streaming.test_files")
async def test_the_example_of_a_storage_asks_for_the_sessions_user(
    async_client, tmp_path, monkeypatch
):
    """With the session's user, whom `request.user` would look up in the event loop."""
    (tmp_path / "a.txt").write_text("abc")
    monkeypatch.setattr(files_storage, "default_storage", FileSystemStorage(tmp_path))
    await async_client.aforce_login(await User.objects.acreate_user("alice"))
    response = await async_client.get("/upload/a.txt")
    assert await body_of(response) == b"abc"
    assert response["Content-Disposition"] == 'attachment; filename="alice-a.txt"'


async def body_of(response: Any) -> bytes:
    return b"".join([part async for part in response])
