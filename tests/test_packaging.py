"""`pip install .` brings the app with all it needs to another site."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .servers import ROOT, environment

SITE = """
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["realtime", "django.contrib.admin", "django.contrib.auth",
        "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.messages"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    SECRET_KEY="x", USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()
import realtime
from django.core.management import call_command
from django.template.loader import get_template
call_command("migrate", verbosity=0)
call_command("publish", "room.a", '{"text": "hi"}')
get_template("realtime/admin/publish.html")
print(realtime.__file__)
"""


@pytest.mark.timeout(180)
def test_a_site_that_adds_the_installed_app(tmp_path: Path) -> None:
    # A copy, since building leaves its own files beside the sources.
    source, target = tmp_path / "source", tmp_path / "site"
    shutil.copytree(ROOT / "realtime", source / "realtime")
    for name in ("pyproject.toml", "README.md", "project", "tests"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            target,
            source,
        ],
        check=True,
        cwd=tmp_path,
    )
    assert not (target / "project").exists()
    assert not (target / "tests").exists()
    assert (target / "realtime" / "py.typed").exists()
    env = {**environment({}), "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", SITE], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert str(target) in done.stdout.splitlines()[-1]
