"""What works where, from the report of tests/whole/parity."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .text import table_of

CONTESTANTS: Final = {"ours": "Ours", "fastapi": "FastAPI", "stock": "Stock Channels"}
SIGNS: Final = {"works": "✅", "fails": "❌", "not offered": "-"}
Check = dict[str, Any]


def load(path: Path) -> list[Check]:
    """The checks in the order of the chapter's rows; none where the suite has not run."""
    if not path.exists():
        return []
    found: list[Check] = json.loads(path.read_text())["rows"]
    return sorted(found, key=lambda check: check["row"])


def overview(checks: Sequence[Check]) -> str:
    """A line per row of the chapter: how many of its checks pass."""
    if not checks:
        return "tests/whole/parity has not been run."
    lines = []
    for row in sorted({check["row"] for check in checks}):
        same = [check for check in checks if check["row"] == row]
        lines.append((str(row), same[0]["topic"], *(_share(same, name) for name in CONTESTANTS)))
    lines.append(("", "all", *(_share(checks, name) for name in CONTESTANTS)))
    return table_of(("row", "topic", *CONTESTANTS.values()), lines, left=2)


def of_row(checks: Sequence[Check], row: int) -> str:
    """The checks of one row, with what was noted about those that do not pass."""
    lines, notes = [], []
    for check in checks:
        if check["row"] != row:
            continue
        results = [check["results"].get(name, "") for name in CONTESTANTS]
        lines.append((check["check"], *(SIGNS.get(result, result) for result in results)))
        for name, note in (check.get("notes") or {}).items():
            notes.append(f"- {CONTESTANTS.get(name, name)}, {check['check']}: {note}")
    if not lines:
        return ""
    text = table_of(("check", *CONTESTANTS.values()), lines)
    return "\n".join([text, *(["", *notes] if notes else [])])


def behind(checks: Sequence[Check]) -> str:
    """What works elsewhere and not here."""
    found = []
    for check in checks:
        results = check["results"]
        others = [
            label
            for name, label in CONTESTANTS.items()
            if name != "ours" and results.get(name) == "works"
        ]
        if others and results.get("ours") in ("fails", "not offered"):
            where = " and ".join(others)
            found.append(f"- Row {check['row']}, {check['check']}: works in {where}.")
    if not checks:
        return "tests/whole/parity has not been run."
    return "\n".join(found) or "Nothing of what tests/whole/parity checks."


def _share(checks: Sequence[Check], name: str) -> str:
    known = [check["results"][name] for check in checks if name in check["results"]]
    return f"{known.count('works')} of {len(known)}" if known else ""
