"""The folders of `realtime/` are its layers: nothing imports a higher one, and nothing in a circle.

Read from the source text, so that imports inside functions and for type checking count too.
"""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
LAYERS: Final = [
    {"exceptions", "conf"},
    {"events", "metrics", "utils", "server"},
    {"models", "processes", "eventlog", "streaming"},
    {"delivery"},
    {"access"},
    {"limits", "presence"},
    {"http", "websocket"},
    {
        "admin",
        "checks",
        "routing",
        "urls",
        "testing",
        "apps",
        "middleware",
        "management",
        "templatetags",
    },
    {"llm"},
]
LAYER: Final = {name: number for number, layer in enumerate(LAYERS) for name in layer}
MIGRATIONS: Final = "migrations"  # written once, and run with the models of their time

FORBIDDEN: Final = {"server": {"django"}, "events": {"django", "asyncio"}}


@cache
def modules() -> dict[str, Path]:
    """Each module of the package by its dotted name."""
    found = {}
    for path in sorted((ROOT / "realtime").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if MIGRATIONS not in parts:
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules that a module imports, dotted and absolute."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            parts = [*base, node.module] if node.level else [node.module]
            module = ".".join(part for part in parts if part)
            for alias in node.names:
                submodule = f"{module}.{alias.name}"
                yield submodule if submodule in known else module


@cache
def graph() -> dict[str, set[str]]:
    """What each module of the package imports of the package."""
    known = modules()
    return {
        name: {found for found in imports(name, path, known) if found in known} - {name}
        for name, path in known.items()
    }


def room(name: str) -> str:
    """The folder or top-level module that a dotted name belongs to; empty for the package."""
    return name.split(".")[1] if "." in name else ""


def test_every_folder_and_module_has_a_layer():
    assert {room(name) for name in modules()} - {""} == set(LAYER)


def test_nothing_imports_a_higher_layer():
    upward = {
        (name, found)
        for name, all_found in graph().items()
        for found in all_found
        if room(name) and room(found) and LAYER[room(name)] < LAYER[room(found)]
    }
    assert upward == set()


def test_layers_of_one_height_do_not_import_each_other():
    """The server knows nothing of the application, nor a transport of another one."""
    apart = [{"events", "server"}, {"utils", "server"}, {"http", "websocket"}]
    sideways = {
        (name, found)
        for name, all_found in graph().items()
        for found in all_found
        if room(name) != room(found) and {room(name), room(found)} in apart
    }
    assert sideways == set()


def test_no_circles():
    """Lazy names of `realtime/__init__.py` are no imports."""
    try:
        list(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_layers_without_django_or_asyncio():
    known = modules()
    found = {
        (name, module)
        for name, path in known.items()
        for module in imports(name, path, known)
        if module.partition(".")[0] in FORBIDDEN.get(room(name), ())
    }
    assert found == set()
