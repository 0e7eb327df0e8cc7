"""deploy/nginx.conf in a real nginx, in front of a real server."""

import asyncio
import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest

from ..support.attempts import three_tries_of
from ..support.clients import ask, bearer, connect, eventually
from ..support.servers import ROOT, certificate, free_port, wait_until
from ..support.sites import site_for_module

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx")

SETTINGS, MAX_CONCURRENT_STREAMS = 4, 3  # of HTTP/2: a kind of frames, and one of what it sets
BY_NGINX = b"Hello from nginx." * 10_000
NAMES = ["hello.txt", "Prüfung 東京 & co.txt", "100% a+b;c'd.txt", "sub folder/page.html"]

AROUND = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 200; }}
http {{
    include /etc/nginx/mime.types;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {shipped}
}}
"""


def shipped(folder: Path, upstream: int, plain: int, tls: int, data: Path) -> str:
    """The file as it is shipped, with this test's ports and paths."""
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    for theirs, ours in {
        "server 127.0.0.1:8000;": f"server 127.0.0.1:{upstream};",
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen 443 ssl http2;": f"listen 127.0.0.1:{tls} ssl http2;",
        "/etc/ssl/www.example.com.pem": f"{folder}/cert.pem",
        "/etc/ssl/www.example.com.key": f"{folder}/key.pem",
        "/var/log/nginx/realtime.log": f"{folder}/access.log",
        "/srv/site/var/": f"{data}/",
    }.items():
        assert theirs in text, theirs
        text = text.replace(theirs, ours)
    return text


@pytest.fixture(scope="module")
def here(
    _site_template: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleNamespace]:
    """A site behind nginx; `url` is nginx's."""
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    options = {"ACCEL_REDIRECT": "/protected/", "KEEPALIVE_SECONDS": 0.5}
    with site_for_module(_site_template, options, "--", "--proxy-headers") as site:
        data = folder / "data"  # not the site's: nginx's own user can't look into a 0700 folder
        (data / "static").mkdir(parents=True)
        (data / "static" / "a.css").write_text("body {}")
        # Of the same name, but not the same: what comes tells who has sent it.
        files = Path(site.env["DATA_DIR"]) / "files"
        for name in NAMES:
            (data / "files" / name).parent.mkdir(exist_ok=True)
            (data / "files" / name).write_bytes(BY_NGINX)
            (files / name).parent.mkdir(exist_ok=True)
            (files / name).write_text("Hello from the site")
        (data / "files" / "only-here.txt").write_bytes(BY_NGINX)
        (data / "files" / ".hidden").write_bytes(BY_NGINX)
        (files / ".hidden").write_bytes(b"hidden")
        for folder_above in (data, files.parent):
            (folder_above / "beside.txt").write_bytes(BY_NGINX)
        (files / "only-there.txt").write_bytes(b"nginx has none of this name")
        certificate(folder)
        plain, tls = free_port(), free_port()
        conf = folder / "nginx.conf"
        ours = shipped(folder, site.server.port, plain, tls, data)
        conf.write_text(AROUND.format(folder=folder, shipped=ours))
        command = [str(NGINX), "-c", str(conf), "-p", str(folder)]
        if Path("/proc/self").owner() == "root":  # its workers would become nobody
            command += ["-g", "user root;"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            wait_until(lambda: listens(tls) or process.poll() is not None, 10, "nginx")
            assert process.poll() is None, process.stderr and process.stderr.read()
            site.plain_url, site.direct = f"http://127.0.0.1:{plain}", site.url
            site.url, site.port = f"https://localhost:{tls}", tls
            site.folder = folder
            site.tls = ssl.create_default_context(cafile=str(folder / "cert.pem"))
            yield site
        finally:
            process.terminate()
            process.wait(10)
            if process.stderr is not None:
                process.stderr.close()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def client(here: Any, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=here.url, verify=here.tls, headers=bearer(here.tokens["alice"]), **options
    )


async def test_cookies_are_secure_and_answers_say_hsts(here):
    async with client(here) as http:
        answer = await http.get("/login/")
        assert "; Secure" in answer.headers["set-cookie"]
        assert answer.headers["strict-transport-security"] == "max-age=2592000"
        answer = await http.get(f"{here.direct}/login/")  # by http://127.0.0.1
        assert "; Secure" not in answer.headers["set-cookie"]
        assert "strict-transport-security" not in answer.headers


async def test_events_come_one_by_one_and_uncompressed(here):
    async def read() -> None:
        headers = {"Accept-Encoding": "gzip"}
        async with (
            client(here) as http,
            http.stream("GET", "/progress?steps=5&interval=0.5", headers=headers) as response,
        ):
            assert response.headers.get("content-encoding", "identity") == "identity"
            arrived = []
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    arrived.append(time.monotonic())
        assert len(arrived) == 6
        gaps = [later - earlier for earlier, later in pairwise(arrived[:5])]
        assert min(gaps) > 0.15, gaps

    await three_tries_of(read)


async def test_keepalive_comments_pass(here):
    async with client(here) as http, http.stream("GET", "/topics/public.a/events") as response:
        seen = ""
        async with asyncio.timeout(20):
            async for text in response.aiter_text():
                seen += text
                if seen.count(": keepalive") >= 2:
                    break
    assert seen.count(": keepalive") >= 2, "the stream has ended"


async def test_a_disconnect_passes_within_a_second(here):
    numbers = count(779)

    async def leave() -> None:
        steps = next(numbers)
        async with (
            client(here) as http,
            http.stream("GET", f"/progress?steps={steps}&interval=0.1") as response,
        ):
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    break
        ended = f"The job of {steps} steps has ended"
        await eventually(lambda: any(ended in line for line in here.log), 1, "finally")

    await three_tries_of(leave)


async def test_a_websocket_with_its_origin(here):
    url = here.url.replace("https", "wss")
    headers = bearer(here.tokens["alice"])
    async with connect(
        f"{url}/ws/echo", ssl=here.tls, additional_headers=headers, origin=here.url
    ) as socket:
        assert await ask(socket, {"a": 1}) == {"echo": {"a": 1}}
    with pytest.raises(Exception, match="403"):
        async with connect(
            f"{url}/ws/echo",
            ssl=here.tls,
            additional_headers=headers,
            origin="https://elsewhere.example",
        ):
            pass


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_http_2(here):
    command = ["curl", "-sN", "--http2", "--cacert", f"{here.folder}/cert.pem"]
    command += ["-H", f"Authorization: Bearer {here.tokens['alice']}", "-w", "%{http_version}"]
    command += [f"{here.url}/progress?steps=2&interval=0.05"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout.count("data: ") == 3
    assert done.stdout.endswith("2"), done.stdout


def test_many_streams_of_one_connection_are_allowed(here):
    """More than nginx's own 128: each event stream of all tabs of a browser is one."""
    context = ssl.create_default_context(cafile=str(here.folder / "cert.pem"))
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", here.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        no_settings = bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + no_settings)
        with connection.makefile("rb") as frames:
            head = frames.read(9)  # RFC 9113, section 4.1: length, kind, flags, stream
            assert head[3] == SETTINGS, "the server's first frame"
            settings = dict(struct.iter_unpack("!HI", frames.read(int.from_bytes(head[:3], "big"))))
    assert settings[MAX_CONCURRENT_STREAMS] >= 1000


@pytest.mark.parametrize(
    ("header", "value"), [("X-Forwarded-Port", "4711"), ("Daphne-Root-Path", "/tests")]
)
def test_what_a_client_says_of_its_port_and_of_the_sites_path_is_not_passed_on(
    here, http, header, value
):
    """The site would believe it of its proxy."""
    usual = http.get("/tests/caller")
    by_proxy = {"X-Forwarded-For": "127.0.0.1", header: value}
    believed = httpx.get(f"{here.direct}/tests/caller", headers=by_proxy)
    assert believed.content != usual.content
    through = http.get("/tests/caller", headers={header: value})
    assert (through.status_code, through.content) == (200, usual.content)


def test_signing_in_over_tls(here):
    """Django compares the Origin and the Referer with the scheme that the browser sees."""
    site = SimpleNamespace(url=here.url)
    with httpx.Client(base_url=here.url, verify=here.tls) as http:
        http.get("/login/")
        form = {
            "username": "alice",
            "password": "sesame",
            "csrfmiddlewaretoken": http.cookies["csrftoken"],
        }
        answer = http.post("/login/", data=form, headers={"Origin": site.url})
        assert answer.status_code == 302, answer.text


@pytest.fixture
def http(here: Any) -> Iterator[httpx.Client]:
    headers = {**bearer(here.tokens["alice"]), "Accept-Encoding": "identity"}
    with httpx.Client(base_url=here.url, verify=here.tls, headers=headers) as client:
        yield client


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_sent_by_nginx(http, name):
    path = f"/tests/private/{quote(name)}"
    whole = http.get(path)
    assert (whole.status_code, whole.content) == (200, BY_NGINX)
    assert whole.headers["content-length"] == str(len(BY_NGINX))
    assert whole.headers["accept-ranges"] == "bytes"
    assert "x-accel-redirect" not in whole.headers, "where it lies is nobody's business"
    # The site's word on what it is and what it is called.
    kind = "text/html" if name.endswith(".html") else "text/plain"
    assert whole.headers["content-type"].startswith(kind)
    said = whole.headers["content-disposition"]
    assert said.startswith("attachment; ")
    encoded = said.partition("filename*=UTF-8''")[2]
    plain = said.partition('filename="')[2].rstrip('"')
    assert (unquote(encoded) or plain) == name.rpartition("/")[2]
    head = http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for header in ("content-length", "content-type", "content-disposition", "etag"):
        assert head.headers[header] == whole.headers[header]


def test_parts_and_conditions_are_nginx_s(http):
    path, size = "/download/hello.txt", len(BY_NGINX)
    for said, start, stop in [("0-4", 0, 5), ("-5", size - 5, size), ("169990-", 169_990, size)]:
        part = http.get(path, headers={"Range": f"bytes={said}"})
        assert (part.status_code, part.content) == (206, BY_NGINX[start:stop])
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
        assert part.headers["content-disposition"] == 'attachment; filename="hello.txt"'
    several = http.get(path, headers={"Range": "bytes=0-4,17-21"})
    assert several.status_code == 206
    assert several.headers["content-type"].startswith("multipart/byteranges")
    assert several.content.count(b"Hello") == 2
    gone = http.get(path, headers={"Range": f"bytes={size}-"})
    assert (gone.status_code, gone.headers["content-range"]) == (416, f"bytes */{size}")
    head = http.head(path)
    same = http.get(path, headers={"If-None-Match": head.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    same = http.get(path, headers={"If-Modified-Since": head.headers["last-modified"]})
    assert (same.status_code, same.content) == (304, b"")
    # An interrupted download goes on, unless the file is another by now.
    rest = http.get(path, headers={"Range": "bytes=9-", "If-Range": head.headers["etag"]})
    assert (rest.status_code, rest.content) == (206, BY_NGINX[9:])
    whole = http.get(path, headers={"Range": "bytes=9-", "If-Range": '"of-before"'})
    assert (whole.status_code, whole.content) == (200, BY_NGINX)


@pytest.mark.parametrize(
    "path",
    [
        "/protected/hello.txt",  # past the site
        "/download/only-here.txt",  # the site knows of none, so nginx is not asked
        "/download/only-there.txt",  # the other way round
        "/download/.hidden",
        "/download/%2e%2e/protected/hello.txt",
        "/download/..%2fprotected%2fhello.txt",
        "/tests/private/..%2fbeside.txt",
        "/tests/private/sub%20folder/%2e%2e/%2e%2e/beside.txt",
        "/tests/private/sub%20folder/..%252f..%252fbeside.txt",
        "/tests/private/sub%20folder",
    ],
)
def test_what_nginx_must_not_send(http, path):
    for method in ("GET", "HEAD"):
        answer = http.request(method, path)
        assert answer.status_code == 404
        assert b"Hello from nginx" not in answer.content


def test_a_private_file_is_served_to_users_with_the_right(here, http):
    path = "/tests/private/hello.txt"
    for headers, status in (({}, 200), ({"Range": "bytes=0-4"}, 206)):
        assert http.get(path, headers=headers).status_code == status
    with httpx.Client(base_url=here.url, verify=here.tls) as nobody:
        for method in ("GET", "HEAD"):
            for headers in ({}, {"Range": "bytes=0-4"}, {"X-Accel-Redirect": "/protected/a"}):
                answer = nobody.request(method, path, headers=headers)
                assert answer.status_code == 401
                assert b"Hello" not in answer.content
        other = nobody.get(path, headers=bearer(here.tokens["bob"]))
        assert (other.status_code, b"Hello" in other.content) == (403, False)


def test_the_site_itself_sends_nothing_of_it(here):
    answer = httpx.get(f"{here.direct}/download/hello.txt")
    assert answer.headers["x-accel-redirect"] == "/protected/hello.txt"
    assert answer.content == b""


def test_static_files(http):
    assert http.get("/static/a.css").text == "body {}"
    assert http.get("/static/a.css").headers["content-type"] == "text/css"


def test_plain_http_is_sent_on(here):
    answer = httpx.get(f"{here.plain_url}/a?b=c", headers={"Host": "localhost"})
    assert (answer.status_code, answer.headers["location"]) == (301, "https://localhost/a?b=c")


def test_no_token_in_a_log(here):
    token = here.tokens["alice"]
    httpx.get(f"{here.url}/topics/public.a/history?token={token}", verify=here.tls)
    log = here.folder / "access.log"
    wait_until(lambda: "/topics/public.a/history" in log.read_text(), 10, "the line")
    assert token not in log.read_text()


def test_a_site_that_is_down_is_502(here, tmp_path):
    """Last in the file, though the order is chance: it has an nginx of its own."""
    port = free_port()
    conf = tmp_path / "nginx.conf"
    certificate(tmp_path)
    ours = shipped(tmp_path, free_port(), free_port(), port, tmp_path)
    conf.write_text(AROUND.format(folder=tmp_path, shipped=ours))
    process = subprocess.Popen([str(NGINX), "-c", str(conf), "-p", str(tmp_path)])
    try:
        wait_until(lambda: listens(port), 10, "nginx")
        url = f"https://localhost:{port}/healthz"
        context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        assert httpx.get(url, verify=context).status_code == 502
    finally:
        process.terminate()
        process.wait(10)
