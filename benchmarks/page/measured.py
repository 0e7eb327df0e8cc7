"""What was measured: on what, and table by table."""

from itertools import groupby
from statistics import mean
from typing import Any, Final

from ..jobs.selftest import LABEL as BARE
from ..report import Report
from .text import number, table_of, times

TITLES: Final = {
    "websocket": "Fan-out over WebSocket",
    "sse": "Fan-out over server-sent events",
    "lagging": "Fan-out past full sockets",
    "echo": "Echo",
    "connect": "Connecting",
    "opens": "Opening event streams",
    "publish": "Publishing",
    "workers": "1, 2 and 4 workers",
    "memory": "Memory per connection",
    "stall": "Stalls of the event loop",
    "ndjson": "NDJSON",
    "file": "A file",
    "slow": "A client that stops reading",
    "token": "The first token",
    "growth": "Memory for very large bodies",
}
HEAD: Final = (
    *("", "contestant", "median", "lowest to highest", "to FastAPI", "per core"),
    *("server, client busy", "received"),
)


def made(report: Report) -> str:
    """When, on what, and with which versions; a paragraph for each run of the command."""
    lines = []
    for meta in report.meta:
        options = f" {meta['options']}" if meta["options"] else ""
        versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
        lines.append(
            f"Made by `python -m benchmarks{options}` on {meta['date']}: {meta['cpu']}, "
            f"{meta['cores']} cores, {meta['memory_gib']:g} GiB, {meta['system']}; "
            f"Python {meta['python']}, {versions}."
        )
    repeats = max((len(row["values"]) for row in report.rows()), default=0)
    if repeats == 1:
        lines.append("Each figure is that of one run: how far to trust it, repeats would tell.")
    elif repeats:
        lines.append(f"Figures are medians of {repeats}, ratios medians of the ratios in a turn.")
    if any("--short" in meta["options"] for meta in report.meta):
        lines.append("**In short mode: this shows that everything works, and not how fast.**")
    return "\n\n".join(lines)


def verdict(report: Report) -> str:
    """Whether all came; and the jobs that failed."""
    tally = report.tally
    text = f"{tally.received:,} of {tally.expected:,} came"
    text += f"; {tally.strange:,} came twice or were strange." if tally.strange else ", none twice."
    if not tally.is_clean:
        text = f"🔴 **{text}**"
    failed = [f"- 🔴 {error.splitlines()[0]}" for error in report.errors]
    return "\n".join([text, *(["", "What failed:", "", *failed] if failed else [])])


def client(report: Report) -> str:
    """What the load client can take, beside the most that it had to."""
    lines = []
    for metric, contestants in report.runs.items():
        if not (bare := contestants.get(BARE)):
            continue
        size = metric.rpartition(" ")[2]
        rate, (most, whose) = mean(run.value for run in bare), _most(report, size)
        load = mean(run.client_load or 0 for run in bare)
        beside = (f"{number(most)} ({whose})", f"{rate / most:.1f} times") if most else ("", "")
        lines.append((size, number(rate), f"{load:.0%}", *beside))
    head = ("sockets", "from the bare sender, per s", "client busy", "most of a contestant", "")
    parts = [table_of(head, lines)] if lines else []
    loads = [
        (found.client_load, f"{found.metric}, {found.contestant}")
        for found in report.measurements
        if found.client_load is not None and found.contestant != BARE
    ]
    if loads:
        load, which = max(loads)
        parts.append(f"The client was busiest in *{which}*: {load:.0%} of its core.")
    return "\n\n".join(parts)


def _most(report: Report, size: str) -> tuple[float, str]:
    found = [(0.0, "nobody")]
    for kind in ("WebSocket", "SSE"):
        for name, runs in report.runs.get(f"{kind} fan-out to {size}", {}).items():
            found += [(run.value, f"{name}, {kind}") for run in runs]
    return max(found)


def details(report: Report) -> str:
    """A table per job."""
    parts = []
    rows = [row for row in report.rows() if row["contestant"] != BARE]
    for job, group in groupby(rows, key=lambda row: row["job"]):
        lines = []
        for metric, same in groupby(group, key=lambda row: row["metric"]):
            for at, row in enumerate(same):
                title = f"{metric}; {row['unit']}, {row['better']} is better"
                lines.append(("" if at else title, *_cells(row)))
        parts.append(f"### {TITLES.get(job, job)}\n\n{table_of(HEAD, lines, left=2)}")
    return "\n\n".join(parts)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    low, high = number(min(row["values"])), number(max(row["values"]))
    loads = [row["server_load"], row["client_load"]]
    busy = ", ".join(f"{load:.0%}" for load in loads if load is not None)
    counts = f"{row['received']:,} of {row['expected']:,}" if row["expected"] else ""
    if row["received"] != row["expected"] or row["strange"]:
        counts = f"🔴 **{counts}, {row['strange']:,} strange**"
    return (
        row["contestant"],
        number(row["median"]),
        low if low == high else f"{low} to {high}",
        times(row["ratio"]),
        times(row["ratio_per_core"]),
        busy,
        counts,
    )
