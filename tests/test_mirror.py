"""Tests mirror the source one to one: who looks for a module's tests finds them under its name."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE, TESTS = ROOT / "realtime", ROOT / "tests"

WITHOUT_TESTS = {
    "admin/admin_pages.py": "both admins' pages",
    "delivery/bus/base.py": "abstract; test_channels tries what has a body",
    "http/readiness.py": "test_health, over real sockets",
    "llm/apps.py": "tests/test_checks.py and tests/llm/test_generation.py go through it",
    "llm/conf.py": "conf/test_setting has both tables",
    "llm/models.py": "tests/llm/test_migrations.py",
    "llm/providers/upstream.py": "tests/llm/test_upstream.py, with both SDKs",
    "management/commands/runserver.py": "Daphne's, with another class",
    "processes/status.py": "test_registry",
    "routing.py": "a table; test_consumers goes through it",
    "server/receiver.py": "an interface; all that test_transport closes ends with nobody",
    "server/__main__.py": "test_cli and test_server start it",
    "utils/commit_group.py": "delivery/test_pending and eventlog/test_held_back",
    "websocket/topic_consumers.py": "test_consumers tries them beside their base",
}
WITHOUT_SOURCE = {
    "delivery/bus/test_servers.py": "one suite for all buses that have a server",
    "delivery/test_subscription_properties.py": "test_subscription's by chance",
    "limits/test_limits.py": "all of them as clients meet them",
    "llm/test_migrations.py": "the table's way from the core",
    "llm/test_providers.py": "the package's own module",
    "llm/test_upstream.py": "llm/providers/upstream.py and both SDKs",
    "server/test_http_request_oracles.py": "test_http_request's, beside httptools and h11",
    "streaming/test_sql_json.py": "the package's own module",
    "test_api.py": "the public names",
    "test_benchmarks.py": "the benchmark's own parts",
    "test_docs.py": "the documentation's code, commands and links",
    "test_layers.py": "the folders of the package",
    "test_mirror.py": "this",
    "test_patterns.py": "every regular expression of the package",
    "test_mutate.py": "tests/mutate",
    "test_names.py": "the names of files and classes",
    "test_the_way.py": "an event through the core",
    "test_packaging.py": "what is installed, and works there",
}


def modules() -> list[str]:
    """Modules with code of their own."""
    found = [path.relative_to(SOURCE) for path in SOURCE.rglob("*.py")]
    return sorted(
        path.as_posix()
        for path in found
        if "migrations" not in path.parts and path.name != "__init__.py"
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
    own = {"chaos", "demo", "hostile", "whole"}  # not of one module
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
