"""The summary: each figure of ours beside FastAPI's, and the bar it has to clear."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

from ..plan import Measurement
from ..report import Report, ratio
from .text import number, table_of, times

OURS: Final = "Ours"
FASTAPI: Final = "FastAPI"
STOCK: Final = "Stock Channels"
# In the details alone.
LEFT_OUT: Final = re.compile(
    r"p50$|^Self-test|of nginx|from the provider itself$"
)  # in the details alone


@dataclass(frozen=True)
class Bar:
    """What a figure has to be, as a ratio to FastAPI's or by itself."""

    of: Literal["ratio", "value"]
    limit: float

    def text(self, found: Measurement) -> str:
        """As the page says it."""
        way = "at least" if found.better == "more" else "at most"
        unit = "x" if self.of == "ratio" else f" {found.unit}"
        return f"{way} {self.limit:g}{unit}"

    def is_met(self, line: "Line") -> bool | None:
        """None where there is nothing to compare."""
        figure = line.ratio if self.of == "ratio" else line.value
        if figure is None:
            return None
        shown = round(figure, 2)  # as the page shows it
        return shown >= self.limit if line.first.better == "more" else shown <= self.limit


AS_FASTAPI: Final = Bar("ratio", 1.0)
BARS: Final = (  # the first that fits
    (re.compile(r"^Memory growth|memory growth$"), Bar("value", 32)),
    (re.compile(r"^Memory per idle"), AS_FASTAPI),
    (re.compile(r"^Longest stall"), Bar("value", 20)),
    (re.compile(r"^WebSocket fan-out to (?!100$)|^SSE fan-out to (?!100$)"), Bar("ratio", 2.0)),
    (re.compile(r"broadcast to 1,000, p99$"), Bar("ratio", 0.7)),
    (re.compile(r"WebSockets opened"), Bar("ratio", 0.6)),
    (re.compile(r"^NDJSON of"), Bar("ratio", 2.0)),
    (re.compile(r"^File of [\d,]+ MiB$"), Bar("ratio", 3.0)),
    (re.compile(r"^First token: later than from the SDK"), Bar("value", 1.0)),
    (re.compile(r""), AS_FASTAPI),
)


@dataclass(frozen=True)
class Line:
    """One line of the summary."""

    name: str
    ours: Sequence[Measurement]
    fastapi: Sequence[Measurement]
    stock: Sequence[Measurement]
    bar: Bar

    @property
    def first(self) -> Measurement:
        """For what all of them have in common."""
        return self.ours[0]

    @property
    def value(self) -> float:
        """Our median."""
        return median(run.value for run in self.ours)

    @property
    def ratio(self) -> float | None:
        """Ours to FastAPI's."""
        return ratio(self.ours, self.fastapi, "value")

    @property
    def per_core(self) -> float | None:
        """The same per second of the server's processor time."""
        return ratio(self.ours, self.fastapi, "per_core")

    @property
    def is_behind(self) -> bool:
        """Whether FastAPI's figure is the better one."""
        if self.ratio is None:
            return False
        shown = round(self.ratio, 2)
        return shown < 1 if self.first.better == "more" else shown > 1


def summarize(report: Report) -> list[Line]:
    """A line per figure of ours; like with like, where it was tried in several ways."""
    lines: list[Line] = []
    for metric, contestants in report.runs.items():
        if LEFT_OUT.search(metric):
            continue
        bar = next(bar for pattern, bar in BARS if pattern.search(metric))
        theirs, stocks = dict(_ways(contestants, FASTAPI)), dict(_ways(contestants, STOCK))
        for way, runs in _ways(contestants, OURS):
            name = f"{metric} ({way})" if way else metric
            fastapi = theirs.get(way) or next(iter(theirs.values()), [])
            # Like with like, unless each has a way of its own.
            stock = stocks.get(way, []) if way in theirs else next(iter(stocks.values()), [])
            lines.append(Line(name, runs, fastapi, stock, bar))
    return lines


def table(lines: Sequence[Line]) -> str:
    """As Markdown."""
    head = ("job", "unit", FASTAPI, OURS, STOCK, "ours to FastAPI", "per core", "bar", "met")
    return table_of(head, map(_cells, lines), left=2)


def missed(lines: Sequence[Line]) -> str:
    """What is below its bar, or behind FastAPI."""
    found = []
    for line in lines:
        below = line.bar.is_met(line) is False
        if below or line.is_behind:
            compared = f", {times(line.ratio)} of FastAPI" if line.ratio is not None else ""
            bar = f"; the bar is {line.bar.text(line.first)}" if below else "; the bar is met"
            found.append(f"- {line.name}: {number(line.value)} {line.first.unit}{compared}{bar}.")
    if not lines:
        return "Nothing was measured."
    return "\n".join(found) or "In this run: nowhere."


def _ways(
    contestants: dict[str, list[Measurement]], label: str
) -> Iterator[tuple[str, list[Measurement]]]:
    for name, runs in contestants.items():
        if name == label:
            yield "", runs
        elif name.startswith(f"{label} ("):
            yield name.removeprefix(f"{label} (").removesuffix(")"), runs


def _cells(line: Line) -> tuple[str, ...]:
    met = line.bar.is_met(line)
    lossy = any(not run.tally.is_clean for run in (*line.ours, *line.fastapi, *line.stock))
    verdict = {True: "yes", False: "**no**", None: ""}[met] + (" 🔴 loss" if lossy else "")
    figures = [
        number(median(run.value for run in runs)) if runs else ""
        for runs in (line.fastapi, line.ours, line.stock)
    ]
    ratios = (times(line.ratio), times(line.per_core))
    return (line.name, line.first.unit, *figures, *ratios, line.bar.text(line.first), verdict)
