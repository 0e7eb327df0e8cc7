"""The public names: all there, lazily imported, documented, and enough for a site."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import realtime

from .support import pages
from .support.servers import ROOT

# Modules that are public by their path. `docs/api.md` says what stands in them.
BY_PATH: Final = {
    "realtime",
    "realtime.eventlog.base",
    "realtime.http.publish_consumer",
    "realtime.llm",
    "realtime.llm.answer_stream",
    "realtime.llm.generation",
    "realtime.llm.provider",
    "realtime.llm.providers",
    "realtime.llm.providers.dummy",
    "realtime.management.commands.serve",
    "realtime.metrics.series",
    "realtime.models",
    "realtime.routing",
    "realtime.server.extensions",
    "realtime.server.limits",
    "realtime.server.server",
    "realtime.server.server_process",
    "realtime.server.supervisor",
    "realtime.testing",
    "realtime.urls",
}
# What looks inside on purpose: it measures single parts, or makes what no site makes.
INSIDE: Final = {
    "benchmarks/flood.py",
    "benchmarks/instrumented.py",
    "benchmarks/parsers.py",
    "benchmarks/scale.py",
    "benchmarks/seed.py",
    "benchmarks/simulated.py",
}
IMPORT: Final = re.compile(r"^\s*(?:from (realtime[\w.]*) import|import (realtime[\w.]*))", re.M)


def python(code: str) -> str:
    """The output of a program in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", realtime.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    found = getattr(realtime, name)
    assert inspect.getdoc(found)
    assert name in dir(realtime)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'publsh'"):
        _ = realtime.publsh


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "realtime" / "__init__.py").read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = [alias.asname or alias.name for node in block.body for alias in node.names]
    assert sorted(seen) == realtime.__all__


def test_importing_the_package_loads_nothing_else():
    heavy = "django asyncio channels daphne twisted asgiref websockets"
    code = f"import realtime, sys; print([n for n in {heavy.split()} if n in sys.modules])"
    assert python(code) == "[]"


def test_an_event_needs_no_settings():
    assert python("from realtime import Event; print(Event('a', 'message', '1').topic)") == "a"


def test_publish_may_be_imported_before_there_are_settings():
    code = """
from realtime import publish, send_to_user
from django.conf import settings
print(settings.configured)
"""
    assert python(code) == "False"


def imported() -> Iterator[tuple[str, str]]:
    """What the site, the documentation and the benchmarks import of the package, by file."""
    paths = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for folder in ("docs/examples", "project", "benchmarks"):
        paths += (ROOT / folder).rglob("*.py")
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        if name not in INSIDE and name != "docs/comparison.md":
            for found in IMPORT.finditer(path.read_text()):
                yield name, found[1] or found[2]


def test_docs_and_project_import_public_names_only():
    assert [each for each in imported() if each[1] not in BY_PATH] == []


def test_the_page_is_made_from_the_names():
    """`python -m tests.support.pages` writes it again."""
    assert pages.API.read_text() == pages.with_names(pages.API.read_text())


def test_every_path_that_is_public_is_on_the_page():
    page = pages.API.read_text()
    assert [path for path in sorted(BY_PATH) if f"`{path}`" not in page] == []


def test_the_package_is_at_home_in_this_checkout():
    assert Path(realtime.__file__ or "").parent == ROOT / "realtime"
