"""A name stands for one thing: no two files and no two public classes are called the same."""

import ast
from collections import Counter
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent / "realtime"
# What Django, or a family of backends, calls the same in every folder; and packages' own files.
FAMILIES: Final = ("eventlog/", "delivery/bus/", "llm/providers/")
DJANGO: Final = {"__init__", "__main__", "admin", "apps", "checks", "conf", "models"}
MOST_LINES: Final = 300
LONGER: Final = {"server/websocket_connection.py"}  # one protocol's states


def modules() -> list[Path]:
    paths = [path.relative_to(ROOT) for path in ROOT.rglob("*.py")]
    return sorted(path for path in paths if not {"migrations", "management"} & set(path.parts))


def is_exempt(path: Path) -> bool:
    return path.stem in DJANGO or path.as_posix().startswith(FAMILIES)


def test_no_two_files_have_one_name():
    names = Counter(path.stem for path in modules() if not is_exempt(path))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_two_public_classes_have_one_name():
    names = Counter(
        node.name
        for path in modules()
        if not is_exempt(path)
        for node in ast.parse((ROOT / path).read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_module_is_long():
    lengths = {path.as_posix(): len((ROOT / path).read_text().splitlines()) for path in modules()}
    long = {name for name, length in lengths.items() if length > MOST_LINES}
    assert long <= LONGER


def test_flat_modules_have_names_that_django_or_channels_look_for():
    flat = {path.stem for path in modules() if len(path.parts) == 1}
    assert flat == {
        *("__init__", "apps", "checks", "exceptions", "middleware", "models"),
        *("routing", "testing", "urls"),
    }
