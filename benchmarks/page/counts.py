"""Lines of code and dependencies, counted."""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from ..contestants import ROOT
from .text import table_of

NOT_COUNTED: Final = ("seed.py", "samples.py", "admin.py", "migrations")  # see page.md
CODE: Final = {
    "FastAPI": "benchmarks/fastapi_app",
    "Stock Channels": "benchmarks/stock_channels",
    "Ours, the site": "project",
    "Ours, the library it stands on": "realtime",
}
SILENT: Final = (
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
)
# A model's SDK is the same for all; the others are for measuring, or optional everywhere.
LEFT_OUT: Final = frozenset({"openai", "anthropic", "psutil", "matplotlib"})
NAME: Final = re.compile(r"^([\w.-]+)(\[[\w, -]+\])?")
STOCK: Final = ("django", "channels", "daphne")


def table() -> str:
    """Both, as Markdown."""
    lines = []
    for name, folder in CODE.items():
        found = modules(ROOT / folder)
        lines.append(
            (name, f"[{folder}]({folder})", str(len(found)), f"{sum(map(lines_of, found)):,}")
        )
    code = table_of(("", "folder", "modules", "lines of Python"), lines, left=2)
    lines = []
    for name, roots in requirements().items():
        lines.append((name, ", ".join(roots), str(len(roots)), str(len(closure(roots)))))
    head = ("", "asks for", "packages", "with what those need")
    return f"{code}\n\n{table_of(head, lines, left=2)}"


def requirements() -> dict[str, list[str]]:
    """What each asks for."""
    return {
        "FastAPI": list(_read(ROOT / "benchmarks" / "requirements.txt")),
        "Stock Channels": [*STOCK, "channels-redis"],
        "Ours, the library": [*STOCK, "websockets"],
        "Ours, the whole site": list(_read(ROOT / "requirements.txt")),
    }


def _read(path: Path) -> Iterator[str]:
    for line in path.read_text().splitlines():
        if line.startswith("# What its tests"):
            return
        found = NAME.match(line)
        if found and found[1].lower() not in LEFT_OUT:
            yield found[0]


def modules(folder: Path) -> list[Path]:
    """Those that are written by hand and do something."""
    return [
        path
        for path in sorted(folder.rglob("*.py"))
        if not set(NOT_COUNTED) & set(path.relative_to(folder).parts) and lines_of(path)
    ]


@cache
def lines_of(path: Path) -> int:
    """Lines with code on them: no blank ones, no comments, no docstrings."""
    text = path.read_text()
    counted: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SILENT:
            counted.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        counted.difference_update(lines_of_docstring(node))
    return len(counted)


def lines_of_docstring(node: ast.AST) -> range:
    """Where it is; empty where there is none."""
    body = getattr(node, "body", ())
    first = body[0] if isinstance(body, list) and body else None
    match first:
        case ast.Expr(value=ast.Constant(value=str())):
            return range(first.lineno, (first.end_lineno or first.lineno) + 1)
    return range(0)


def closure(roots: Iterable[str]) -> set[str]:
    """The packages that are installed because of these, themselves included."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        wanted = waiting.pop()
        key = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if key in seen:
            continue
        try:
            needs = distribution(wanted.name).requires or ()
        except PackageNotFoundError:
            continue
        seen.add(key)
        extras = wanted.extras or {""}
        for need in map(Requirement, needs):
            if not need.marker or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(need)
    return {name for name, _ in seen}
