"""The plots: SVG on a plain background, the same bytes for the same figures."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

from ..jobs.selftest import LABEL as BARE
from ..report import Report

COLORS: Final = {  # told apart by the colour-blind too, and by their markers
    "FastAPI": ("#009e73", "s"),
    "Ours": ("#0072b2", "o"),
    "Stock Channels": ("#d55e00", "^"),
    BARE: ("#808080", "x"),
}
UNKNOWN: Final = ("#000000", ".")
KINDS: Final = ("WebSocket", "SSE")
FAN_OUT: Final = re.compile(r"^(WebSocket|SSE) fan-out to ([\d,]+)$")
LATENCY: Final = re.compile(r"^(WebSocket|SSE) broadcast to ([\d,]+), (p50|p99)$")
SELFTEST: Final = re.compile(r"^Self-test: (bare sender) to ([\d,]+)$")
SLOW: Final = re.compile(r"^Memory growth, a client stops reading")
STYLE: Final = {
    "svg.hashsalt": "benchmarks",
    "svg.fonttype": "none",  # text stays text: small files, and searchable
    "font.family": "sans-serif",
    "font.size": 10,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "lines.markersize": 5,
    "legend.frameon": False,
}
WIDTHS: Final = {"FastAPI": 6.0}  # so that another line on top of it leaves it to be seen
FLAT: Final = 20.0  # MiB: less would make hills of what is none
Curves = dict[str, dict[int, float]]  # by contestant, then by connections


def draw(report: Report, folder: Path) -> dict[str, str]:
    """Those that there are figures for; what each shows, by file name."""
    import matplotlib
    from matplotlib.figure import Figure

    drawn: dict[str, str] = {}
    plots: Mapping[str, tuple[Callable[[Any, Report], bool], str]] = {
        "latency.svg": (_latency, "Latency of a broadcast against connections"),
        "throughput.svg": (_throughput, "Deliveries per second against connections"),
        "memory.svg": (_memory, "Memory of the worker against time, with a slow reader"),
    }
    with matplotlib.rc_context(STYLE):
        for name, (plot, says) in plots.items():
            figure = Figure(figsize=(9, 4), layout="constrained")
            if plot(figure, report):
                folder.mkdir(parents=True, exist_ok=True)
                figure.savefig(folder / name, metadata={"Date": None})
                drawn[name] = says
    return drawn


def images(plotted: Mapping[str, str]) -> str:
    """As Markdown."""
    return "\n\n".join(f"![{says}](plots/{name})" for name, says in plotted.items())


def _latency(figure: Any, report: Report) -> bool:
    found = False
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), KINDS, strict=True):
        slowest = curves(report, LATENCY, kind, "p99")
        for name, curve in curves(report, LATENCY, kind, "p50").items():
            found = True
            _line(axes, f"{name}, p50", name, curve, "-")
            _line(axes, f"{name}, p99", name, slowest[name], "--")
        _label(axes, kind, "ms until the last has it")
    _legend(figure)
    return found


def _throughput(figure: Any, report: Report) -> bool:
    found = False
    bare = curves(report, SELFTEST, "bare sender").get(BARE, {})
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), KINDS, strict=True):
        for name, curve in curves(report, FAN_OUT, kind).items():
            found = True
            _line(axes, name, name, curve, "-")
        if bare:
            _line(axes, "a bare sender: what the client can take", BARE, bare, ":")
        _label(axes, kind, "deliveries/s")
    _legend(figure)
    return found


def _memory(figure: Any, report: Report) -> bool:
    axes, found = figure.subplots(), False
    for metric, contestants in report.runs.items():
        for name, runs in contestants.items():
            run = sorted(runs, key=lambda run: run.value)[len(runs) // 2]
            if not SLOW.search(metric) or not run.series:
                continue
            found = True
            color, _ = COLORS.get(name, UNKNOWN)
            width = WIDTHS.get(name, 2.0)
            axes.plot(*zip(*run.series, strict=True), color=color, label=name, lw=width)
    pause = max((meta["plan"]["pause"] for meta in report.meta), default=0)
    axes.axvspan(0, pause, color="#eeeeee", zorder=0, label="the client does not read")
    axes.set_xlabel("seconds since the request")
    axes.set_ylabel("MiB more than before")
    axes.set_xlim(left=0)
    low, high = axes.get_ylim()
    axes.set_ylim(min(0, low), max(FLAT, high))
    axes.yaxis.set_major_formatter(_thousands)
    _legend(figure)
    return found


def curves(report: Report, pattern: re.Pattern[str], *wanted: str) -> Curves:
    """Medians of the metrics that the pattern finds, with `wanted` beside their size."""
    found: Curves = {}
    for size, name, value in _points(report, pattern, wanted):
        found.setdefault(name, {})[size] = value
    return found


def _points(
    report: Report, pattern: re.Pattern[str], wanted: tuple[str, ...]
) -> Iterator[tuple[int, str, float]]:
    for metric, contestants in report.runs.items():
        if (match := pattern.match(metric)) is None:
            continue
        kind, size, *rest = match.groups()
        if (kind, *rest) == wanted:
            for name, runs in contestants.items():
                yield int(size.replace(",", "")), name, median(run.value for run in runs)


def _line(axes: Any, label: str, name: str, curve: dict[int, float], style: str) -> None:
    color, marker = COLORS.get(name, UNKNOWN)
    sizes = sorted(curve)
    values = [curve[size] for size in sizes]
    axes.plot(sizes, values, style, color=color, marker=marker, label=label)


def _label(axes: Any, title: str, unit: str) -> None:
    axes.set_title(title)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("connections")
    if axes.get_subplotspec().is_first_col():
        axes.set_ylabel(unit)
    sizes = sorted({float(x) for line in axes.get_lines() for x in line.get_xdata()})
    axes.set_xticks(sizes, labels=[f"{size:,.0f}" for size in sizes])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(_thousands)


def _thousands(value: float, _: object) -> str:
    return f"{value:,.0f}" if value >= 1 or value <= 0 else f"{value:g}"


def _legend(figure: Any) -> None:
    known: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    figure.legend(known.values(), known, loc="outside lower center", ncols=3)
