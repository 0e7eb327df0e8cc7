"""README's "Use it in your site", copied to the letter into a project that Django has started."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User

from realtime.access.permissions import Action, default_rule

from ..support.server_log import unexpected
from ..support.servers import ROOT, environment, free_port, wait_until

TEXT = (ROOT / "README.md").read_text()
SECTION = TEXT.split("## Use it in your site\n")[1].split("\n## ")[0]
# Code by the file that its first line names.
FILES = dict(
    re.findall(r"^```python\n# (mysite/\w+\.py), [^\n]*\n(.*?)^```$", SECTION, re.M | re.S)
)
COMMANDS = re.findall(r"^\$ (.*)$", SECTION, re.M)


def bash(site: SimpleNamespace, command: str, **options: Any) -> "subprocess.Popen[str]":
    """Run a command of README; `localhost:8000` is a free port."""
    ours = command.replace("localhost:8000", f"127.0.0.1:{site.port}")
    return subprocess.Popen(
        ["bash", "-c", ours], cwd=site.folder, env=site.env, text=True, **options
    )


def run(site: SimpleNamespace, command: str) -> str:
    process = bash(site, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, f"{command}:\n{output}"
    return output


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """What `startproject` makes, the code of README in it, migrated and with a user."""
    folder = tmp_path_factory.mktemp("readme")
    started = [sys.executable, "-m", "django", "startproject", "mysite", str(folder)]
    subprocess.run(started, check=True, timeout=60)
    for name, code in FILES.items():
        path = folder / name
        path.write_text(code if path.name == "asgi.py" else path.read_text() + code)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    password = {"DJANGO_SUPERUSER_PASSWORD": "sesame"}
    env = environment({"PATH": path, "PYTHONPATH": str(ROOT), **password})
    found = SimpleNamespace(folder=folder, env=env, port=free_port())
    migrate, createsuperuser = COMMANDS[:2]
    run(found, migrate)
    run(found, f"{createsuperuser} --noinput --email ada@example.com")
    return found


@contextmanager
def served(site: SimpleNamespace, command: str) -> Iterator[None]:
    log = site.folder / "server.log"
    with log.open("w") as out, bash(site, f"exec {command}", stdout=out, stderr=out) as server:
        try:
            wait_until(lambda: is_listening(site.port), 30, "the start")
            yield
        finally:
            server.terminate()
        assert server.wait(30) == 0, log.read_text()
    assert unexpected(log.read_text().splitlines(), []) == []


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_names_every_file_and_command() -> None:
    assert list(FILES) == ["mysite/settings.py", "mysite/urls.py", "mysite/asgi.py"]
    assert [command.split()[-1] for command in COMMANDS[:3]] == ["migrate", "ada", "runserver"]
    assert len(COMMANDS) == 5


def test_checks_find_nothing(site: SimpleNamespace) -> None:
    assert "no issues" in run(site, "python manage.py check --fail-level WARNING")


@pytest.mark.parametrize(
    "command",
    [f"{COMMANDS[2]} --noreload {{0}}", "python manage.py serve --workers 2 --port {0}"],
    ids=["runserver", "serve"],
)
def test_reader_gets_what_is_published(site: SimpleNamespace, command: str) -> None:
    read, publish = COMMANDS[3:]
    with (
        served(site, command.format(site.port)),
        bash(site, f"exec {read}", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as curl,
    ):
        assert curl.stdout is not None
        try:
            assert curl.stdout.readline().startswith("id: ")  # it listens
            run(site, publish)
            line = next(line for line in curl.stdout if line.startswith("data: "))
        finally:
            curl.terminate()
    assert line == 'data: {"text":"hello"}\n'


@pytest.mark.parametrize("action", ["read", "publish"])
async def test_example_topic_is_not_for_every_user(action: Action) -> None:
    topics = set(
        re.findall(r"topics/([\w.]+)/|manage.py publish ([\w.]+)|publish\(\"([\w.]+)", SECTION)
    )
    (topic,) = {name for names in topics for name in names if name}
    assert not await default_rule(User(pk=1), topic, action)
