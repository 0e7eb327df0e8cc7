"""The measured part of the comparison as a Markdown page."""

import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from typing import Any

from .report import Report, times

PACKAGES = (
    *("django", "channels", "daphne", "fastapi", "uvicorn", "uvloop", "redis", "sqlalchemy"),
    *("orjson", "openai"),
)

INTRODUCTION = """\
# Measured

Made by `python -m benchmarks` on {date}: Python {python}, {packages}; {machine}.

Each server runs alone on one core, with one worker; the client and Valkey run on another. FastAPI
is on uvicorn with uvloop and httptools, stock Channels on stock Daphne, ours is `manage.py serve`;
all use SQLite, and no one writes an access log. The contestants take turns job by job; figures are
medians of {repeats}, ratios are medians of the ratios within each turn. *Per core* is the ratio
per second of the server's processor time, without the time it waited.

What each contestant does for a message is not the same. Ours looks up the publisher's access
token, appends the event to the log in the database, and can replay it; FastAPI's and Channels' do
neither. Ours and Channels open WebSockets for users of their own, each with its own session or
token; FastAPI without, and for comparison with tokens.

Every message carries a number, and is counted for each socket; rows, MiB of a download and tokens
are counted too: {received:,} of {expected:,} came.
"""


def render(report: Report) -> str:
    """The whole page."""
    rows = list(report.rows())
    parts = [_introduction(report, rows)]
    for metric, group in groupby(rows, key=lambda row: row["metric"]):
        parts.append(_section(metric, list(group)))
    if report.errors:
        parts.append("## Failed\n\n" + "".join(f"- {e.splitlines()[0]}\n" for e in report.errors))
    return "\n".join(parts)


def _introduction(report: Report, rows: list[dict[str, Any]]) -> str:
    return INTRODUCTION.format(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        python=sys.version.split()[0],
        packages=", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        machine=f"{platform.system()} {platform.release()}",
        repeats=max(len(row["values"]) for row in rows),
        received=report.tally.received,
        expected=report.tally.expected,
    )


def _section(metric: str, rows: list[dict[str, Any]]) -> str:
    better = "more is better" if rows[0]["better"] == "more" else "less is better"
    lines = [f"## {metric}", "", f"In {rows[0]['unit']}; {better}.", ""]
    lines += [
        "| | median | lowest to highest | to FastAPI | per core | server, client busy | received |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    return "\n".join([*lines, *(_line(row) for row in rows), ""])


def _line(row: dict[str, Any]) -> str:
    spread = f"{min(row['values']):,.1f} to {max(row['values']):,.1f}"
    busy = "" if row["server_load"] is None else f"{row['server_load']:.0%}, "
    busy += "" if row["client_load"] is None else f"{row['client_load']:.0%}"
    counts = f"{row['received']:,} of {row['expected']:,}" if row["expected"] else ""
    if row["received"] != row["expected"] or row["strange"]:
        counts = f"**{counts}, {row['strange']:,} strange**"
    ratios = f"{times(row['ratio']).strip()} | {times(row['ratio_per_core']).strip()}"
    return (
        f"| {row['contestant']} | {row['median']:,.1f} | {spread} | {ratios} | {busy} | {counts} |"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"
