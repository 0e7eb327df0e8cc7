"""Runs jobs by contestants in turn, each on a fresh server, with one Valkey for all."""

import os
import signal
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from .contestants import Contestant
from .jobs import JOBS, selftest
from .machine import cores, valkey
from .plan import Measurement, Plan
from .progress import Progress
from .report import Report

SELFTEST: Final = "self-test of the client"
Step = tuple[int, str, Contestant]  # turn, job, whose


def placed(plan: Plan) -> Plan:
    """The plan with the server's core; this process moves to the client's."""
    server_core, client_core, everywhere = cores()
    # A job's server and the temporary folders go with their with blocks, here too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    os.sched_setaffinity(0, {client_core})
    print(f"Server on core {server_core}; client and Valkey on core {client_core}.", flush=True)
    if server_core == client_core:
        print("There is only one core: the figures say little.")
    return replace(plan, server_core=server_core, cores=everywhere)


def run(
    steps: Sequence[Step],
    contestants: Sequence[Contestant],
    plan: Plan,
    report: Report,
    *,
    self_test: bool = True,
    results: Path | None = None,
) -> None:
    """Prepare the contestants and take the steps; `results` is saved after each."""
    jobs = {job for _, job, _ in steps}
    first = [f"prepare {contestant.label}" for contestant in contestants]
    first += [SELFTEST] if self_test else []
    progress = Progress([*first, *(f"{job}, {who.label}" for _, job, who in steps)])
    (client_core,) = os.sched_getaffinity(0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
        redis_url = stack.enter_context(valkey(client_core))
        rows = plan.rows if "ndjson" in jobs else 0
        most = max(rows, plan.growth_rows if "growth" in jobs else 0)
        for contestant in contestants:
            progress.say()
            needed = most if contestant.is_large else rows
            contestant.prepare(folder, redis_url, plan.users, needed)
            progress.step()
        if self_test:
            progress.say()
            take(selftest.run(plan), report, SELFTEST, 0)
            progress.step()
        for turn, job, contestant in steps:
            progress.say()
            take(JOBS[job](contestant, plan), report, f"{job}, {contestant.label}", turn)
            progress.step()
            if results:
                report.save(results)  # what was measured by then, should it end here


def plan_steps(
    jobs: Iterable[str], contestants: Sequence[Contestant], repeat: int, once: Collection[str]
) -> Iterator[Step]:
    """Each job by all contestants, one after the other, and all but `once` of it again."""
    for turn in range(repeat):
        # Another begins each time, so that none always follows the same one.
        shift = turn % len(contestants)
        for job in jobs:
            if turn and job in once:
                continue
            for contestant in [*contestants[shift:], *contestants[:shift]]:
                yield turn, job, contestant


def take(found: Iterable[Measurement], report: Report, name: str, turn: int) -> None:
    """Take a job's figures in, or its error: the others go on."""
    try:
        for measurement in found:
            measurement.job, measurement.turn = name.partition(",")[0], turn
            report.add(measurement)
    except Exception as error:
        notes = "\n".join(getattr(error, "__notes__", ()))
        report.errors.append(f"{name}: {type(error).__name__}: {error}\n{notes}".rstrip())
