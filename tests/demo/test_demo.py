"""`manage.py demo`, from nothing to running."""

import json
import stat
from pathlib import Path

import httpx
import pytest

from .support import Demo, csrf_token, running_demo


def sign_in(client: httpx.Client, username: str, password: str) -> httpx.Response:
    token = csrf_token(client.get("/login/").text)
    fields = {"username": username, "password": password, "csrfmiddlewaretoken": token}
    return client.post("/login/", data=fields)


def test_it_prints_where_it_is_and_how_to_get_in(demo: Demo) -> None:
    passwords = demo.passwords()
    assert set(passwords) == {"admin", "alice", "bob"}
    assert len(set(passwords.values())) == 3
    for name, password in passwords.items():
        with httpx.Client(base_url=demo.url) as client:
            assert sign_in(client, name, password).headers["location"] == "/"
            assert f"<strong>{name}</strong>" in client.get("/").text
            may_administer = client.get("/admin/").status_code == 200
            assert may_administer == (name == "admin")


def test_its_pages_answer(demo: Demo) -> None:
    for path in ("/", "/login/", "/admin/login/"):
        assert httpx.get(demo.url + path).status_code == 200, path
    for path in ("/", "/login/"):
        policy = httpx.get(demo.url + path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("demo/demo.css", "text/css"),
        ("demo/demo.js", "text/javascript"),
        ("demo/realtime.js", "text/javascript"),
        ("demo/icon.svg", "image/svg+xml"),
        ("admin/css/base.css", "text/css"),
    ],
)
def test_static_files_are_served_with_debug_off(demo: Demo, path: str, content_type: str) -> None:
    answer = httpx.get(f"{demo.url}/static/{path}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == content_type
    # The debug page lists the URL patterns; its absence says that DEBUG is off.
    assert "urlpatterns" not in httpx.get(f"{demo.url}/no-such-page").text


def test_a_click_signs_in(demo: Demo) -> None:
    with httpx.Client(base_url=demo.url) as client:
        token = csrf_token(client.get("/").text)
        fields = {"username": "bob", "csrfmiddlewaretoken": token}
        assert client.post("/demo/sign-in/", data=fields).headers["location"] == "/"
        assert "<strong>bob</strong>" in client.get("/").text


def test_a_login_by_password_ends_no_session_that_a_click_has_begun(demo: Demo) -> None:
    with httpx.Client(base_url=demo.url) as by_click, httpx.Client(base_url=demo.url) as by_form:
        token = csrf_token(by_click.get("/").text)
        by_click.post("/demo/sign-in/", data={"username": "alice", "csrfmiddlewaretoken": token})
        assert sign_in(by_form, "alice", demo.passwords()["alice"]).status_code == 302
        for client in (by_form, by_click):
            assert "<strong>alice</strong>" in client.get("/").text


@pytest.mark.parametrize(("fields", "status"), [({}, 403), ({"username": "root"}, 404)])
def test_sign_in_by_click_refuses_other_users_and_missing_csrf_tokens(
    demo: Demo, fields: dict[str, str], status: int
) -> None:
    with httpx.Client(base_url=demo.url) as client:
        token = csrf_token(client.get("/").text)
        if status != 403:
            fields = {**fields, "csrfmiddlewaretoken": token}
        assert client.post("/demo/sign-in/", data=fields).status_code == status
        assert client.get("/demo/sign-in/").status_code == 405
        assert "sessionid" not in client.cookies


def test_other_hosts_get_nothing(demo: Demo) -> None:
    """A page whose name was bound to 127.0.0.1 may not talk to the demo."""
    assert httpx.get(demo.url, headers={"Host": "evil.example"}).status_code == 400


def test_it_keeps_its_key_for_its_owner(demo: Demo) -> None:
    path = demo.data_dir / "secret_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().strip()) >= 50


def test_it_makes_items_and_files(demo: Demo) -> None:
    code = "from project.demo.models import Item; print(Item.objects.count())"
    assert demo.manage("shell", "--no-imports", "-c", code).split()[-1] == "3"
    folder = demo.data_dir / "files"
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert sizes["ten-megabytes.txt"] == 10 * 2**20
    assert any('"' in name and " " in name and not name.isascii() for name in sizes)
    assert (folder / "tone.wav").read_bytes()[:4] == b"RIFF"
    assert not [name for name in sizes if name.startswith(".")]


def test_a_second_run_finds_everything_as_it_was(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        before = demo.passwords()
        event_id = demo.manage("publish", "room.lobby", '{"text": "kept"}').split()[-1]
        with httpx.Client(base_url=demo.url) as client:
            sign_in(client, "alice", before["alice"])
            cookies = dict(client.cookies)
    hello = tmp_path / "files" / "hello.txt"
    hello.write_text("changed by its owner")
    with running_demo(tmp_path, "--items", "5") as demo:
        assert demo.passwords() == before
        with httpx.Client(base_url=demo.url, cookies=cookies) as client:
            assert (
                "<strong>alice</strong>" in client.get("/").text
            )  # the session outlives a restart
            with client.stream("GET", "/topics/room.lobby/events?after=0") as stream:
                lines = stream.iter_lines()
                data = next(line for line in lines if line.startswith("data:"))
        assert json.loads(data.removeprefix("data:")) == {"text": "kept"}
        assert event_id
        code = "from project.demo.models import Item; print(Item.objects.count())"
        assert demo.manage("shell", "--no-imports", "-c", code).split()[-1] == "5"
    assert hello.read_text() == "changed by its owner"


def test_users_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--host", "192.0.2.1")  # refused; here for its manage()
    demo.stop()
    demo.manage("migrate", "--verbosity", "0")
    code = "from django.contrib.auth.models import User; User.objects.create_user('admin')"
    demo.manage("shell", "--no-imports", "-c", code)
    with running_demo(tmp_path) as demo:
        assert set(demo.passwords()) == {"alice", "bob"}
        assert "not made by the demo" in demo.output
        assert 'value="admin"' not in httpx.get(demo.url).text


@pytest.mark.parametrize(
    ("host", "env", "sentence"),
    [
        ("0.0.0.0", {}, "DEMO_ALLOW_PUBLIC=1"),
        ("::", {}, "DEMO_ALLOW_PUBLIC=1"),
        ("", {}, "DEMO_ALLOW_PUBLIC=1"),
        ("example.com", {"DEMO_ALLOW_PUBLIC": "0"}, "DEMO_ALLOW_PUBLIC=1"),
        ("0.0.0.0", {"DEMO_ALLOW_PUBLIC": "1"}, "set ALLOWED_HOSTS"),
    ],
)
def test_it_refuses_to_be_public(
    tmp_path: Path, host: str, env: dict[str, str], sentence: str
) -> None:
    demo = Demo(tmp_path / "never", "--host", host, env=env)
    assert demo.process.wait(20) == 1
    demo.stop()
    assert sentence in demo.output
    assert "Traceback" not in demo.output
    assert not any((tmp_path / "never").glob("*")), "something was prepared all the same"


def test_in_public_a_click_is_not_enough(tmp_path: Path) -> None:
    env = {"DEMO_ALLOW_PUBLIC": "1", "ALLOWED_HOSTS": "127.0.0.1", "DEMO": "1"}
    with running_demo(tmp_path, "--host", "0.0.0.0", env=env) as demo, httpx.Client() as client:
        client.base_url = httpx.URL(f"http://127.0.0.1:{demo.port}")
        assert "/demo/sign-in/" not in client.get("/").text
        token = csrf_token(client.get("/login/").text)
        fields = {"username": "alice", "csrfmiddlewaretoken": token}
        assert client.post("/demo/sign-in/", data=fields).status_code == 403
        assert sign_in(client, "alice", demo.passwords()["alice"]).status_code == 302


def test_a_name_that_is_no_loopback_needs_the_password(tmp_path: Path) -> None:
    """Behind a tunnel or a proxy on this machine, everybody comes from 127.0.0.1."""
    with running_demo(tmp_path, env={"ALLOWED_HOSTS": "demo.example"}) as demo:
        page = httpx.get(demo.url, headers={"Host": "demo.example"})
        assert page.status_code == 200
        assert "/demo/sign-in/" not in page.text
        assert "/demo/sign-in/" in httpx.get(demo.url).text


def test_a_port_that_is_taken_is_said(demo: Demo, tmp_path: Path) -> None:
    second = Demo(tmp_path / "second", "--port", str(demo.port))
    assert second.process.wait(20) == 1
    second.stop()
    assert f"Can't listen on 127.0.0.1:{demo.port}" in second.output
