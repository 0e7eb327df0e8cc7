"""Medians, ratios, a table; and all of it as JSON, to be rendered again."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from .load import Tally
from .plan import Measurement

BASELINE = "FastAPI"
NOTHING = 1.0  # MiB: less is no growth
RED, RESET = "\033[31m", "\033[0m"


class Report:
    """All measurements of a run, by metric and contestant, one value per repeat."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, list[Measurement]]] = {}
        self.tally = Tally()
        self.errors: list[str] = []
        self.meta: list[dict[str, Any]] = []  # of each run of the command: date, machine, versions

    def add(self, measurement: Measurement) -> None:
        """Take one in."""
        by_name = self.runs.setdefault(measurement.metric, {})
        by_name.setdefault(measurement.contestant, []).append(measurement)
        self.tally.add(measurement.tally)

    @property
    def measurements(self) -> Iterable[Measurement]:
        """All of them."""
        for contestants in self.runs.values():
            for runs in contestants.values():
                yield from runs

    @property
    def is_clean(self) -> bool:
        """Whether everything that was sent arrived once, and every job ended."""
        return self.tally.is_clean and not self.errors

    def save(self, path: Path) -> None:
        """Everything, as JSON; a measurement a line."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(json.dumps(_as_json(found)) for found in self.measurements)
        head = f'"meta": {json.dumps(self.meta)},\n"errors": {json.dumps(self.errors)}'
        path.write_text(f'{{{head},\n"measurements": [\n{lines}\n]}}\n')

    def load(self, path: Path) -> None:
        """Take in what was saved, as further repeats."""
        found = json.loads(path.read_text())
        first = 1 + max((measurement.turn for measurement in self.measurements), default=-1)
        self.meta += found["meta"]
        self.errors += found["errors"]
        for values in found["measurements"]:
            values["tally"] = Tally(**values.get("tally", {}))
            values["series"] = [(when, value) for when, value in values.get("series", ())]
            values["turn"] = values.get("turn", 0) + first
            self.add(Measurement(**values))

    def rows(self) -> Iterable[dict[str, Any]]:
        """One per metric and contestant."""
        for metric, contestants in self.runs.items():
            base = baseline(contestants)
            for name, runs in contestants.items():
                tally = Tally()
                for run in runs:
                    tally.add(run.tally)
                yield {
                    "job": runs[0].job,
                    "metric": metric,
                    "contestant": name,
                    "median": median(run.value for run in runs),
                    "values": [run.value for run in runs],
                    "unit": runs[0].unit,
                    "better": runs[0].better,
                    "ratio": ratio(runs, base, "value"),
                    "ratio_per_core": ratio(runs, base, "per_core"),
                    "server_load": _mean_load(run.server_load for run in runs),
                    "client_load": _mean_load(run.client_load for run in runs),
                    "expected": tally.expected,
                    "received": tally.received,
                    "strange": tally.strange,
                }

    def table(self, *, color: bool) -> str:
        """For a terminal."""
        red, reset = (RED, RESET) if color else ("", "")
        lines: list[str] = []
        metric = ""
        for row in self.rows():
            if row["metric"] != metric:
                metric = row["metric"]
                better = "more is better" if row["better"] == "more" else "less is better"
                lines += ["", f"{metric} ({row['unit']}, {better})"]
            line = f"  {row['contestant']:<28}{row['median']:>12,.1f}"
            line += times(row["ratio"])
            if row["server_load"] is not None:
                line += f"  {times(row['ratio_per_core'])} per core"
                line += f"  server {row['server_load']:>4.0%}  client {row['client_load']:>4.0%}"
            if row["expected"]:
                counts = f"   {row['received']:,} of {row['expected']:,}"
                bad = row["received"] != row["expected"] or row["strange"]
                if row["strange"]:
                    counts += f", {row['strange']:,} strange"
                line += f"{red}{counts} LOSS{reset}" if bad else counts
            lines.append(line)
        lines += ["", *(f"{red}{error}{reset}" for error in self.errors)]
        lines.append(self.counts() if self.is_clean else f"{red}{self.counts()}{reset}")
        return "\n".join(lines)

    def counts(self) -> str:
        """What came of what was sent."""
        counts = f"{self.tally.received:,} of {self.tally.expected:,} deliveries"
        if self.is_clean:
            return f"{counts}: nothing lost, nothing twice."
        return f"{counts}, {self.tally.strange:,} strange: NOT CLEAN"


def baseline(contestants: dict[str, list[Measurement]]) -> list[Measurement] | None:
    """FastAPI's runs; the usual ones, where it was tried in several ways."""
    for name, runs in contestants.items():
        if name == BASELINE or name.startswith(f"{BASELINE} ("):
            return runs
    return None


def ratio(runs: list[Measurement], base: list[Measurement] | None, figure: str) -> float | None:
    """The median of the ratios, repeat by repeat: what slows one repeat down slows all in it."""
    others = {run.turn: getattr(run, figure) for run in base or ()}
    pairs = [(getattr(run, figure), others.get(run.turn)) for run in runs]
    if runs[0].unit == "MiB" and all(value < NOTHING for pair in pairs for value in pair if value):
        return None  # both are the allocator's noise
    found = [value / other for value, other in pairs if value is not None and other]
    return median(found) if found else None


def times(ratio: float | None) -> str:
    """A ratio as text, blank where there is none."""
    return " " * 8 if ratio is None else f"{ratio:>7.2f}x"


def _mean_load(loads: Iterable[float | None]) -> float | None:
    known = [load for load in loads if load is not None]
    return sum(known) / len(known) if known else None


def _as_json(measurement: Measurement) -> dict[str, Any]:
    """Without what is empty, and no more digits than mean something."""
    values = {name: value for name, value in asdict(measurement).items() if value not in (None, [])}
    for name in ("value", "server_load", "client_load", "cost"):
        if name in values:
            values[name] = float(f"{values[name]:.6g}")
    if measurement.tally == Tally():
        del values["tally"]
    return values
