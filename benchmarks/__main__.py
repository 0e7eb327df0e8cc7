"""`python -m benchmarks`: run the jobs, print medians and ratios to FastAPI."""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from . import page
from .contestants import Contestant, everyone
from .jobs import JOBS, selftest
from .machine import cores, raise_file_limit, valkey
from .plan import SHORT, Plan
from .report import Progress, Report

NEEDED = 64  # file descriptors besides the sockets


def main() -> int:
    """The exit code: 1 when anything was lost, or a job failed."""
    options = arguments()
    files = raise_file_limit()
    server_core, client_core = cores()
    plan = replace(SHORT if options.short else Plan(), server_core=server_core)
    if options.seconds:
        plan = replace(plan, seconds=options.seconds)
    if options.sizes:
        plan = replace(plan, sizes=tuple(options.sizes))
    plan = replace(plan, stall=min(plan.stall, files - NEEDED))
    known = everyone()
    contestants = [known[name] for name in options.contestants]
    os.sched_setaffinity(0, {client_core})
    print(f"Server on core {server_core}; client and Valkey on core {client_core}.")
    if server_core == client_core:
        print("There is only one core: the figures say little.")
    report = Report()
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        valkey(client_core) as redis_url,
    ):
        rows = plan.rows if "ndjson" in options.jobs else 0
        for contestant in contestants:
            contestant.prepare(Path(folder), redis_url, plan.users, rows)
        compare(contestants, options.jobs, plan, options.repeat, report)
    print(report.table(color=sys.stdout.isatty()))
    if options.output:
        write(report, options.output)
    return 0 if report.is_clean else 1


def write(report: Report, path: Path) -> None:
    """JSON for `.json`, else a Markdown page."""
    if path.suffix == ".json":
        path.write_text(json.dumps(list(report.rows()), indent=1) + "\n")
    else:
        path.write_text(page.render(report))


def compare(
    contestants: list[Contestant], jobs: list[str], plan: Plan, repeat: int, report: Report
) -> None:
    """Each job by all contestants, one after the other, and all of it again."""
    progress = Progress(1 + repeat * len(jobs) * len(contestants))
    progress.say("self-test of the client")
    for measurement in selftest.run(plan):
        report.add(measurement)
    progress.step()
    for turn in range(repeat):
        for job in jobs:
            # Another begins each time, so that none always follows the same one.
            shift = turn % len(contestants)
            for contestant in [*contestants[shift:], *contestants[:shift]]:
                progress.say(f"{job}, {contestant.label}")
                try:
                    for measurement in JOBS[job](contestant, plan):
                        report.add(measurement)
                except Exception as error:
                    notes = "\n".join(getattr(error, "__notes__", ()))
                    report.errors.append(
                        f"{job}, {contestant.label}: {type(error).__name__}: {error}\n{notes}"
                    )
                progress.step()


def arguments() -> argparse.Namespace:
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
    parser.add_argument("--output", type=Path, help="a .json or a Markdown file")
    options = parser.parse_args()
    options.repeat = options.repeat or (1 if options.short else 3)
    return options


if __name__ == "__main__":
    sys.exit(main())
