"""Tests mirror the source one to one: who looks for a module's tests finds them under its name."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE, TESTS = ROOT / "realtime", ROOT / "tests"

WITHOUT_TESTS = {
    "log/base.py": "abstract; test_database tries the one there is",
    "management/commands/runserver.py": "Daphne's, with another class",
    "routing.py": "a table; test_consumers goes through it",
    "topic_consumers.py": "test_consumers tries them beside their base",
    "urls.py": "a table; test_views goes through it",
}
WITHOUT_SOURCE = {
    "test_benchmarks.py": "the benchmark's own parts",
    "test_bounds.py": "what a worker of the whole site holds",
    "test_stock_servers.py": "the whole under another server",
    "test_leaks.py": "what a thousand connections leave behind",
    "test_docs.py": "the documentation's code, commands and links",
    "test_main_job.py": "the whole, with everything failing",
    "test_mirror.py": "this",
    "test_nginx.py": "deploy/nginx.conf",
    "test_packaging.py": "what is installed, and works there",
    "test_subscription_properties.py": "test_subscription's by chance",
}


def modules() -> list[str]:
    """Modules with code of their own; the server package has its own tests' layout."""
    found = [path.relative_to(SOURCE) for path in SOURCE.rglob("*.py")]
    return sorted(
        path.as_posix()
        for path in found
        if path.parts[0] not in ("server", "migrations") and path.name != "__init__.py"
    )


def path_of_tests(module: str) -> Path:
    path = TESTS / module.replace("management/commands/", "management/")
    return path.with_name(f"test_{path.name}")


def paths_of_source(test: str) -> list[Path]:
    path = SOURCE / test
    path = path.with_name(path.name.removeprefix("test_"))
    return [path, path.parent / "commands" / path.name]


@pytest.mark.parametrize("module", modules())
def test_a_module_has_its_tests(module):
    has_tests = path_of_tests(module).exists()
    assert has_tests != (module in WITHOUT_TESTS), WITHOUT_TESTS.get(module, "no tests")


def test_tests_have_their_module():
    own = {"server", "demo", "parity"}  # not of the app
    tests = [path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")]
    orphans = {
        path.as_posix()
        for path in tests
        if path.parts[0] not in own
        and not any(p.exists() for p in paths_of_source(path.as_posix()))
    }
    assert orphans <= set(WITHOUT_SOURCE)


def test_the_exceptions_are_about_what_exists():
    assert set(WITHOUT_TESTS) <= set(modules())


def test_every_test_is_collected_once():
    """Two tests of one name in a module: Python keeps the last, and nobody runs the first."""
    twice = []
    for path in TESTS.rglob("test_*.py"):
        names = [
            node.name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        ]
        twice += [f"{path.name}: {name}" for name in set(names) if names.count(name) > 1]
    assert twice == []
