"""The page from its parts."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from ..contestants import ROOT
from ..report import Report
from . import bars, counts, features, measured, plots, rows

TEMPLATE: Final = Path(__file__).with_name("page.md")
PLACE: Final = re.compile(r"^<!-- (\w+) -->$", re.M)
LINK: Final = re.compile(r"(\]\()([^)#:]+)((?:#[^)]*)?\))")


def write(report: Report, output: Path, parity: Path) -> None:
    """The page and, beside it, its plots."""
    output.parent.mkdir(parents=True, exist_ok=True)
    plotted = plots.draw(report, output.parent / "plots")
    output.write_text(render(report, output.parent, parity, plotted))


def render(report: Report, folder: Path, parity: Path, plotted: Mapping[str, str]) -> str:
    """The text, with links that hold from `folder`. `plotted`: what each plot shows, by file."""
    checked = features.load(parity)
    summary = bars.summarize(report)
    parts: Mapping[str, Callable[[], str]] = {
        "made": lambda: measured.made(report),
        "verdict": lambda: measured.verdict(report),
        "summary": lambda: bars.table(summary),
        "missed": lambda: bars.missed(summary),
        "behind": lambda: features.behind(checked),
        "features": lambda: features.overview(checked),
        "plots": lambda: plots.images(plotted),
        "client": lambda: measured.client(report),
        "details": lambda: measured.details(report),
        "counts": counts.table,
        "rows": lambda: rows.sections(checked),
        "better": rows.fastapi_is_better,
    }
    text = PLACE.sub(lambda found: parts[found[1]](), TEMPLATE.read_text())
    text = LINK.sub(lambda found: found[1] + _from(folder, found[2]) + found[3], text)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _from(folder: Path, path: str) -> str:
    """A path below the project, as seen from the page's folder; plots are beside it already."""
    if path.startswith("plots/"):
        return path
    return Path(os.path.relpath(ROOT / path, folder.resolve())).as_posix()
