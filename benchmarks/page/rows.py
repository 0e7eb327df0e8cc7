"""The chapter row by row: both ways in a few lines of the files themselves, and the difference."""

import ast
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from ..contestants import ROOT
from . import features
from .counts import lines_of_docstring

DATA: Final = Path(__file__).with_name("rows.toml")
LONGEST: Final = 24  # lines of one piece of code
WAYS: Final = (("FastAPI", "fastapi"), ("Django", "django"))
REMARKS: Final = (
    ("What differs", "differs"),
    ("What it costs", "costs"),
    ("Where FastAPI is the better choice", "better"),
)


def load() -> list[dict[str, Any]]:
    """What is written about each row."""
    return list(tomllib.loads(DATA.read_text())["row"])


def sections(checked: Sequence[features.Check]) -> str:
    """A section per row."""
    return "\n\n".join(_section(row, checked) for row in load())


def fastapi_is_better() -> str:
    """Where a row says so, as a list."""
    return "\n".join(
        f"- Row {row['number']}, {row['topic']}: {' '.join(row['better'].split())}"
        for row in load()
        if "better" in row
    )


def _section(row: dict[str, Any], checked: Sequence[features.Check]) -> str:
    parts = [f"### {row['number']}. {row['topic']}"]
    for who, key in WAYS:
        if key in row:
            parts.append(f"**{who}.** {row[key].strip()}")
            parts += [_shown(reference) for reference in row.get(f"{key}_code", ())]
    parts += [f"**{title}.** {_sentence(row[key])}" for title, key in REMARKS if key in row]
    parts.append(features.of_row(checked, row["number"]))
    return "\n\n".join(filter(None, parts))


def _sentence(text: str) -> str:
    """With a capital, which a list of these does without."""
    text = text.strip()
    return text[:1].upper() + text[1:]


def references() -> Iterator[str]:
    """All pieces of code that the rows show, as `file:name,name`."""
    for row in load():
        for _, key in WAYS:
            yield from row.get(f"{key}_code", ())


def _shown(reference: str) -> str:
    path, _, _ = reference.partition(":")
    return f"[{path}]({path}):\n\n```py\n{source(reference)}\n```"


def source(reference: str) -> str:
    """The pieces named, without docstrings."""
    path, _, names = reference.partition(":")
    return "\n\n".join(_piece(ROOT / path, name) for name in names.split(","))


def _piece(path: Path, name: str) -> str:
    text, node = _parsed(path)
    for part in name.split("."):
        inside: list[Any] = [child for child in node.body if part in _names(child)]
        if not inside:
            raise LookupError(f"{path.relative_to(ROOT)} has no {name}")
        node = inside[0]
    first = min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", ()))])
    left_out = {number for inner in ast.walk(node) for number in lines_of_docstring(inner)}
    lines = text.splitlines()
    numbers = range(first, (node.end_lineno or first) + 1)
    kept = [lines[number - 1] for number in numbers if number not in left_out]
    indent = len(kept[0]) - len(kept[0].lstrip())
    kept = [line[indent:] for line in kept]
    # A blank line after what a docstring stood below.
    kept = [line for at, line in enumerate(kept) if line or not kept[at - 1].endswith(":")]
    if len(kept) > LONGEST:
        kept = [*kept[: LONGEST - 1], "    ..."]
    return "\n".join(kept)


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [str(node.name)] if hasattr(node, "name") else []


@cache
def _parsed(path: Path) -> tuple[str, Any]:
    text = path.read_text()
    return text, ast.parse(text)
