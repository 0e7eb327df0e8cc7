"""docs/parity.json: what was found, in an order that does not change from run to run."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from tests.support.servers import ROOT

PAGE: Final = ROOT / "docs" / "parity.json"
TWIN: Final = "fastapi"
# What the results of the twin depend on.
FILES: Final = (
    "benchmarks/fastapi_app/*.py",
    "benchmarks/requirements.txt",
    "tests/whole/parity/*.py",
)
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


def digest() -> str:
    """Return a digest of the files that the twin's results depend on."""
    found = hashlib.sha256()
    for path in sorted(path for pattern in FILES for path in ROOT.glob(pattern)):
        found.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return found.hexdigest()


def is_current(path: Path) -> bool:
    """Return whether a report has the twin's results with the files as they are."""
    return path.exists() and json.loads(path.read_text()).get("files") == digest()


def write(path: Path, checks: Collection[Check], found: Found) -> None:
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
    is_new = all((check, TWIN) in found for check in checks)
    written = json.loads(path.read_text()).get("files", "") if path.exists() else ""
    report = {"files": digest() if is_new else written, "rows": rows}
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
