"""docs/parity.json: what was found, in an order that does not change from run to run."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from tests.support.servers import ROOT

PAGE: Final = ROOT / "docs" / "parity.json"
EVERYONE: Final = "--contestants ours fastapi stock"
REMEDY: Final = (
    "python -m pytest tests/whole/parity -p no:randomly "
    f"{EVERYONE} --parity-report docs/parity.json"
)
Check: TypeAlias = tuple[int, str, str]  # row, topic, sentence
Found: TypeAlias = Mapping[tuple[Check, str], tuple[str, str]]  # outcome and note by contestant


def read(path: Path) -> dict[Check, dict[str, Any]]:
    """The entries of a report; none where there is no file."""
    if not path.exists():
        return {}
    return {
        (entry["row"], entry["topic"], entry["check"]): entry
        for entry in json.loads(path.read_text())["rows"]
    }


def write(path: Path, checks: Iterable[Check], found: Found) -> None:
    """Bring a report up to date; what was not tried this time is kept."""
    before, rows = read(path), []
    for check in sorted(set(checks)):
        row, topic, sentence = check
        entry = before.get(check, {"results": {}, "notes": {}})
        results, notes = dict(entry["results"]), dict(entry["notes"])
        for (tried, contestant), (outcome, note) in found.items():
            if tried == check:
                results[contestant] = outcome
                notes.pop(contestant, None)
                if note:
                    notes[contestant] = note
        if results:
            rows.append(
                {
                    "row": row,
                    "topic": topic,
                    "check": sentence,
                    "results": {name: results[name] for name in sorted(results)},
                    "notes": {name: notes[name] for name in sorted(notes)},
                }
            )
    path.write_text(json.dumps({"rows": rows}, indent=2, ensure_ascii=False) + "\n")
