"""`python -m benchmarks`: run the jobs, print medians and ratios to FastAPI, write the page."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from .contestants import ROOT, everyone
from .jobs import JOBS, ONCE
from .machine import describe, raise_file_limit
from .plan import SHORT, Plan
from .report import Report
from .runner import placed, plan_steps, run

NEEDED: Final = 64  # file descriptors besides the sockets
PARITY: Final = ROOT / "docs" / "parity.json"
RESULTS: Final = ROOT / "var" / "benchmarks.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 when anything was lost, or a job failed."""
    options = parse(arguments)
    report = Report()
    if options.rendered:
        for path in options.rendered:
            report.load(path)
    else:
        if options.parity:
            compare_features(report)
        measure(options, report)
        report.save(options.results)
    print(report.table(color=sys.stdout.isatty()))
    if not options.rendered:
        print(f"All of it is in {options.results}; --from renders it again.")
    if options.output:
        from .page import write  # matplotlib is needed for a page alone

        write(report, options.output, PARITY)
        print(f"Written: {options.output}")
    return 0 if report.is_clean else 1


def compare_features(report: Report) -> None:
    """The parity suite, for the page's table of what works; its own failures are part of that."""
    print("What works where: tests/whole/parity", flush=True)
    command = [sys.executable, "-m", "pytest", "tests/whole/parity", "-q", "--no-header", "-p"]
    command += ["no:randomly", "--contestants", *everyone(), "--parity-report", str(PARITY)]
    before = PARITY.stat().st_mtime_ns if PARITY.exists() else 0
    code = subprocess.run(command, cwd=ROOT).returncode
    if not PARITY.exists() or PARITY.stat().st_mtime_ns == before:
        report.errors.append(
            f"tests/whole/parity ended with {code} and no {PARITY.relative_to(ROOT)}"
        )


def measure(options: argparse.Namespace, report: Report) -> None:
    """All jobs by all contestants."""
    files = raise_file_limit()
    plan = SHORT if options.short else Plan()
    if options.seconds:
        plan = replace(plan, seconds=options.seconds)
    if options.sizes:
        plan = replace(plan, sizes=tuple(options.sizes))
    if options.workers:
        plan = replace(plan, workers=tuple(options.workers))
    plan = replace(plan, stall=min(plan.stall, files - NEEDED))
    known = everyone()
    contestants = [known[name] for name in options.contestants]
    report.meta.append(describe(plan, "--short" if options.short else ""))
    steps = list(plan_steps(options.jobs, contestants, options.repeat, ONCE))
    run(steps, contestants, placed(plan), report, results=options.results)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    names = list(everyone())
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="smaller jobs; ends in two minutes")
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS), metavar="JOB")
    parser.add_argument(
        "--contestants", nargs="+", choices=names, default=names, metavar="NAME", help=str(names)
    )
    parser.add_argument("--repeat", type=int, help="default: 3; with --short 1")
    parser.add_argument("--seconds", type=float, help="of one measurement")
    parser.add_argument("--sizes", nargs="+", type=int, help="sockets of the fan-out jobs")
    parser.add_argument("--workers", nargs="+", type=int, help="how many, of the job of that name")
    parser.add_argument("--output", type=Path, help="the Markdown page to write; plots beside it")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="JSON",
        help="default: var/benchmarks.json, or beside the page",
    )
    parser.add_argument(
        "--from",
        dest="rendered",
        nargs="+",
        type=Path,
        metavar="JSON",
        help="measure nothing: take these results, several as further repeats",
    )
    parser.add_argument(
        "--parity",
        action=argparse.BooleanOptionalAction,
        help="run tests/whole/parity first; default: for a page, but not with --short",
    )
    options = parser.parse_args(arguments)
    options.repeat = options.repeat or (1 if options.short else 3)
    if options.parity is None:
        options.parity = bool(options.output) and not options.short
    if options.results is None:
        beside = options.output and options.output.parent / "plots" / "results.json"
        options.results = beside or RESULTS
    return options


if __name__ == "__main__":
    sys.exit(main())
