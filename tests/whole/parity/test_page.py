"""docs/parity.json names the checks that there are."""

import importlib
from pathlib import Path

import pytest

from . import page


def checks() -> list[page.Check]:
    """What the modules beside this one are marked with."""
    found = []
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f"{__package__}.{path.stem}")
        for thing in vars(module).values():
            if getattr(thing, "__module__", None) == module.__name__:
                marks = getattr(thing, "pytestmark", [])
                found += [mark.args for mark in marks if mark.name == "row"]
    return found


def test_each_check_has_a_sentence_of_its_own() -> None:
    assert len(checks()) == len(set(checks())) > 50


def test_the_page_names_each_check_and_no_other(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("parity_report", None) is not None:
        pytest.skip("It is written at the end of this run.")
    written = set(page.read(page.PAGE))
    assert written == set(checks()), f"Write it anew: {page.REMEDY}"


def test_a_report_keeps_what_was_not_tried_and_drops_what_is_gone(tmp_path: Path) -> None:
    path, kept, gone = tmp_path / "parity.json", (12, "SSE resume", "b"), (1, "Basics", "a")
    page.write(path, [kept, gone], {(kept, "ours"): ("works", ""), (gone, "ours"): ("works", "")})
    page.write(path, [kept], {(kept, "fastapi"): ("fails", "It was seen.")})
    assert page.read(path) == {
        kept: {
            "row": 12,
            "topic": "SSE resume",
            "check": "b",
            "results": {"fastapi": "fails", "ours": "works"},
            "notes": {"fastapi": "It was seen."},
        }
    }


def test_a_report_is_current_when_all_of_the_twin_was_tried_with_the_files_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, one, other = tmp_path / "parity.json", (1, "Basics", "a"), (1, "Basics", "b")
    assert not page.is_current(path)
    page.write(
        path, [one, other], {(one, "fastapi"): ("works", ""), (other, "ours"): ("works", "")}
    )
    assert not page.is_current(path)
    page.write(path, [one, other], {(each, "fastapi"): ("works", "") for each in (one, other)})
    assert page.is_current(path)
    page.write(path, [one, other], {(one, "ours"): ("works", "")})
    assert page.is_current(path)
    monkeypatch.setattr(page, "FILES", ["benchmarks/requirements.txt"])
    assert not page.is_current(path)
