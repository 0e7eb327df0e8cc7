"""Medians, ratios, a table."""

import sys
from collections.abc import Iterable
from statistics import median
from typing import Any

from .load import Tally
from .plan import Measurement

BASELINE = "FastAPI"
RED, RESET = "\033[31m", "\033[0m"


class Report:
    """All measurements of a run, by metric and contestant, one value per repeat."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, list[Measurement]]] = {}
        self.tally = Tally()
        self.errors: list[str] = []

    def add(self, measurement: Measurement) -> None:
        """Take one in."""
        by_name = self.runs.setdefault(measurement.metric, {})
        by_name.setdefault(measurement.contestant, []).append(measurement)
        self.tally.add(measurement.tally)

    @property
    def is_clean(self) -> bool:
        """Whether everything that was sent arrived once, and every job ended."""
        return self.tally.is_clean and not self.errors

    def rows(self) -> Iterable[dict[str, Any]]:
        """One per metric and contestant."""
        for metric, contestants in self.runs.items():
            base = _baseline(contestants)
            for name, runs in contestants.items():
                tally = Tally()
                for run in runs:
                    tally.add(run.tally)
                yield {
                    "metric": metric,
                    "contestant": name,
                    "median": median(run.value for run in runs),
                    "values": [run.value for run in runs],
                    "unit": runs[0].unit,
                    "better": runs[0].better,
                    "ratio": _ratio(runs, base, "value"),
                    "ratio_per_core": _ratio(runs, base, "per_core"),
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
        verdict = f"{self.tally.received:,} of {self.tally.expected:,} deliveries"
        if self.is_clean:
            lines.append(f"{verdict}: nothing lost, nothing twice.")
        else:
            lines.append(f"{red}{verdict}, {self.tally.strange:,} strange: NOT CLEAN{reset}")
        return "\n".join(lines)


def _baseline(contestants: dict[str, list[Measurement]]) -> list[Measurement] | None:
    """FastAPI's runs; without credentials, where it was tried both ways."""
    return contestants.get(BASELINE) or contestants.get(f"{BASELINE} (no auth)")


def _ratio(runs: list[Measurement], base: list[Measurement] | None, figure: str) -> float | None:
    """The median of the ratios, repeat by repeat: what slows one repeat down slows all in it."""
    pairs = [
        (getattr(run, figure), getattr(other, figure))
        for run, other in zip(runs, base or (), strict=False)
    ]
    return median(ours / theirs for ours, theirs in pairs) if pairs and all(pairs[0]) else None


def times(ratio: float | None) -> str:
    """A ratio as text, blank where there is none."""
    return " " * 8 if ratio is None else f"{ratio:>7.2f}x"


def _mean_load(loads: Iterable[float | None]) -> float | None:
    known = [load for load in loads if load is not None]
    return sum(known) / len(known) if known else None


class Progress:
    """A bar on stderr."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0

    def say(self, what: str) -> None:
        """What is being done now."""
        filled = round(24 * self._done / self._total)
        bar = "#" * filled + "." * (24 - filled)
        end = "" if sys.stderr.isatty() else "\n"
        start = "\r\033[K" if sys.stderr.isatty() else ""
        text = f"{start}[{bar}] {self._done}/{self._total} {what}"
        print(text, end=end, file=sys.stderr, flush=True)

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        if self._done == self._total:
            self.say("done")
            if sys.stderr.isatty():
                print(file=sys.stderr)
