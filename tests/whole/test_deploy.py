"""docs/deploy.md: its settings in a project that Django has started, and its units."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.servers import ROOT, environment
from .test_readme import FILES

PAGE = (ROOT / "docs" / "deploy.md").read_text()


def block_of(heading: str) -> str:
    """The first indented block below a heading, without its indentation."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.search(r"^    .*(?:\n(?:    .*)?)*", section, re.M)
    assert found is not None
    return re.sub(r"^    ", "", found[0], flags=re.M).rstrip() + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    started = [sys.executable, "-m", "django", "startproject", "mysite", str(tmp_path)]
    subprocess.run(started, check=True, timeout=60)
    settings, urls = tmp_path / "mysite" / "settings.py", tmp_path / "mysite" / "urls.py"
    settings.write_text(f"{settings.read_text()}\n{block_of('Settings')}")
    if "MAILERS" in settings.read_text():  # Django 6.1 begins with a server for development
        with settings.open("a") as file:
            file.write(
                'MAILERS["default"]["BACKEND"] = "django.core.mail.backends.smtp.EmailBackend"\n'
            )
    urls.write_text(urls.read_text() + FILES["mysite/urls.py"])
    (tmp_path / "mysite" / "asgi.py").write_text(FILES["mysite/asgi.py"])
    return tmp_path


def test_checks_for_deployment_find_nothing_in_the_settings(folder: Path) -> None:
    given = dict.fromkeys(("DB_HOST", "DB_NAME", "DB_USER", "DB_PASSWORD"), "site")
    given |= {"SECRET_KEY": "sesame-" * 9, "ALLOWED_HOSTS": "www.example.com"}
    env = environment({"PYTHONPATH": str(ROOT), "REDIS_URL": "redis://127.0.0.1:1", **given})
    check = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(check, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_finds_nothing_in_the_units(tmp_path: Path) -> None:
    text = block_of("systemd").replace("/srv/site/venv/bin/python", sys.executable)
    service, socket = re.split(r"^# \S+/site\.(?:service|socket).*\n", text, flags=re.M)[1:]
    (tmp_path / "site.service").write_text(service)
    (tmp_path / "site.socket").write_text(socket)
    units = [str(tmp_path / name) for name in ("site.service", "site.socket")]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert [line for line in done.stderr.splitlines() if "site." in line] == []
