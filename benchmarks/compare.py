"""`python -m benchmarks compare OLD NEW`: does a change cost speed?

Both commits are checked out, and their servers are measured in turns, by this client and on the
same core. What is judged is the server's processor time per operation, which another process on
the machine does not lengthen, pair by pair; and the memory of an idle connection, by one run each.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any, Final

import psycopg
from psycopg.sql import SQL, Identifier

from .contestants import ROOT, SESSION, TOKEN, Ours
from .machine import describe, raise_file_limit
from .page.text import number, table_of
from .plan import Measurement, Plan
from .report import Report
from .runner import placed, plan_steps, run

COMPARED: Final = (
    *("websocket", "sse", "lagging", "echo", "connect", "opens", "ndjson", "publish"),
    *("token", "memory"),
)
ONCE: Final = frozenset({"memory"})
MEMORY: Final = "Memory per idle"
TOLERATED: Final = 1.03  # the ratio of new to old above which a job may fail
AGREEING: Final = 6 / 7  # the share of the pairs that has to be worse too
FULL: Final = Plan(sizes=(1_000,), opens=(1_000,), seconds=2.0, is_sdk_measured=False)
QUICK: Final = replace(
    FULL,
    seconds=0.5,
    rest=0.5,
    storm=500,
    opens=(500,),
    idle=500,
    missed=100,
    rows=50_000,
    prompts=20,
    quiet=0.5,
)
PER: Final = {  # what one operation is, by a measurement's unit
    "deliveries/s": "delivery",
    "round trips/s": "round trip",
    "connections/s": "connection",
    "events/s": "event",
    "rows/s": "row",
    "ms": "answer",
}
WORK_TREE: Final = "the working tree"
OLD, NEW = "Old", "New"


class Commit(Ours):
    """Our server, as a commit has it, with a database of its own."""

    def prepare(self, folder: Path, redis_url: str, users: int, rows: int) -> None:
        own = folder / self.label
        own.mkdir()
        super().prepare(own, redis_url, users, rows)


@dataclass(frozen=True)
class Verdict:
    """What pairs of figures say, of which less is better."""

    ratio: float  # of new to old, the median
    worse: int
    pairs: int

    @property
    def is_failure(self) -> bool:
        """Whether the new ones are worse, by more than what machines do by themselves."""
        return self.ratio > TOLERATED and self.worse >= self.pairs * AGREEING


@dataclass(frozen=True)
class Row:
    """One figure of both commits, from each pair."""

    job: str
    name: str
    unit: str  # us of processor time, or KiB
    per: str
    old: list[float]
    new: list[float]

    @property
    def verdict(self) -> Verdict:
        """What the pairs say."""
        return judge(list(zip(self.old, self.new, strict=True)))


def judge(pairs: Sequence[tuple[float, float]]) -> Verdict:
    """Judge pairs of an old and a new figure, taken one right after the other."""
    ratios = [new / old for old, new in pairs]
    return Verdict(median(ratios), sum(ratio > 1 for ratio in ratios), len(ratios))


def rows_of(report: Report) -> Iterator[Row]:
    """What can be judged, in the order of the jobs."""
    for metric, runs in report.runs.items():
        for name, old in runs.items():
            if not name.startswith(OLD):
                continue
            way = name.removeprefix(OLD)  # " (token)"
            new = {run.turn: figure(run) for run in runs.get(f"{NEW}{way}", ())}
            both = [(figure(run), new.get(run.turn)) for run in old]
            pairs = [(one, other) for one, other in both if one and one > 0 and other]
            if pairs:
                is_memory = metric.startswith(MEMORY)
                unit = "KiB" if is_memory else "us"
                per = "connection" if is_memory else PER[old[0].unit]
                figures = [list(column) for column in zip(*pairs, strict=True)]
                yield Row(old[0].job, metric + way, unit, per, *figures)


def figure(found: Measurement) -> float | None:
    """Microseconds of the server's processor time for an operation, or KiB of a connection."""
    if found.metric.startswith(MEMORY):
        return found.value
    return None if found.cost is None else found.cost * 1e6


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    head = ("job", "per", "old", "new", "ratio", "worse", "verdict")
    return table_of(head, map(_cells, rows), left=2)


def _cells(row: Row) -> tuple[str, ...]:
    found = row.verdict
    medians = [f"{number(median(figures))} {row.unit}" for figures in (row.old, row.new)]
    verdict = "**worse**" if found.is_failure else "ok"
    return (
        row.name,
        row.per,
        *medians,
        f"{found.ratio:.3f}",
        f"{found.worse} of {found.pairs}",
        verdict,
    )


def as_json(old: str, new: str, report: Report, rows: Sequence[Row]) -> dict[str, Any]:
    """All that was found."""
    lines = [
        {**asdict(row), **asdict(row.verdict), "is_failure": row.verdict.is_failure} for row in rows
    ]
    return {"old": old, "new": new, "meta": report.meta, "errors": report.errors, "rows": lines}


def check_out(commit: str | None, folder: Path) -> str:
    """Put a commit's files into the folder, or the working tree's; the name of what is there."""
    folder.mkdir()
    if commit is None:
        for name in git("ls-files", "-coz", "--exclude-standard").decode().split("\0"):
            if name and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        return WORK_TREE
    with tarfile.open(fileobj=BytesIO(git("archive", commit))) as archive:
        # Python 3.11 has no filters before 3.11.4; git's own archive has nothing to filter.
        archive.extractall(
            folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )
    return git("rev-parse", "--short", f"{commit}^{{commit}}").decode().strip()


def git(*arguments: str) -> bytes:
    """What git prints. Exits with what it complains of."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True)
    if done.returncode:
        sys.exit(done.stderr.decode(errors="replace").strip())
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 when a job is worse, or failed, or something was lost."""
    options = parse(arguments)
    report = Report()
    plan = QUICK if options.quick else FULL
    raise_file_limit()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-")))
        contestants, names = [], []
        for label, commit in ((OLD, options.old), (NEW, options.new)):
            root = folder / label
            names.append(check_out(commit, root))
            topics = ("room.benches", "public.bench")
            contestants.append(Commit("ours", label, (SESSION, TOKEN), *topics, root=root))
        report.meta.append(describe(plan, " ".join(sys.argv[1:])))
        plan = placed(plan)
        if options.postgresql:
            from .engines import postgresql

            # Beside the client, so that the server has its core alone.
            name_databases(contestants, stack.enter_context(postgresql(folder)))
        steps = list(plan_steps(options.jobs, contestants, options.pairs, ONCE))
        run(steps, contestants, plan, report, self_test=False)
    rows = list(rows_of(report))
    print(f"\nProcessor time of the server: {names[0]} (old), {names[1]} (new)\n\n{table(rows)}\n")
    print(*report.errors, report.counts(), sep="\n")
    if options.output:
        options.output.write_text(json.dumps(as_json(*names, report, rows), indent=1) + "\n")
    return 1 if not report.is_clean or any(row.verdict.is_failure for row in rows) else 0


def name_databases(contestants: Sequence[Commit], url: str) -> None:
    """Make each a database of its own on that PostgreSQL."""
    with psycopg.connect(url, autocommit=True) as connection:
        for contestant in contestants:
            name = contestant.label.lower()
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
            contestant.database = f"{url.rpartition('/')[0]}/{name}"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks compare", description=__doc__)
    parser.add_argument("old", metavar="OLD", help="a commit")
    parser.add_argument(
        "new", metavar="NEW", nargs="?", help="a commit; default: the working tree as it is now"
    )
    parser.add_argument("--pairs", type=int, help="default: 7; with --quick 3")
    parser.add_argument("--quick", action="store_true", help="short runs: a hint, no judgement")
    parser.add_argument(
        "--jobs", nargs="+", choices=COMPARED, default=COMPARED, metavar="JOB", help=str(COMPARED)
    )
    parser.add_argument(
        "--postgresql", action="store_true", help="both on a PostgreSQL that is started for it"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="the JSON file to write")
    options = parser.parse_args(arguments)
    options.pairs = options.pairs or (3 if options.quick else 7)
    return options


if __name__ == "__main__":
    sys.exit(main())
