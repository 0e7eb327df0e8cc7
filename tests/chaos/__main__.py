"""Break sites by random schedules: `python -m tests.chaos [--schedules 200] [--seed 0]`.

Each schedule has readers, publishers and three faults drawn from its seed, and afterwards
everything is compared with the log, event by event. Printed are the schedules that failed, and a
report; the exit code is 1 if any failed. With TEST_DATABASE=postgresql the database is PostgreSQL
behind a proxy, else SQLite. The servers of the bus and the log that `--bus` and `--log` name stand
behind proxies too, and are killed.
"""

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress

from ..support.brokers import BROKERS
from .faults import faults_of
from .schedule import PACE_SECONDS, Options, run_share, wait_at

START_SECONDS = 120.0  # in which all sites have to be ready


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="the first schedule's")
    parser.add_argument("--processes", type=int, default=4, help="sites beside each other")
    parser.add_argument(
        "--pace",
        type=float,
        default=PACE_SECONDS,
        help="seconds between two events of a publisher: more lets more sites run at once",
    )
    parser.add_argument("--bus", choices=BROKERS, default="channels")
    parser.add_argument("--log", choices=["database", "redis"], default="database")
    parser.add_argument("--fault", action="append", help="use this one instead of random ones")
    parser.add_argument(
        "--before",
        metavar="COMMIT",
        help="a release that the sites run at first, for the fault `workers: another release`",
    )
    parser.add_argument("--list", action="store_true", help="print the faults' names and end")
    parser.add_argument("--verbose", action="store_true", help="print each schedule")
    options = parser.parse_args()
    if options.list:
        print(*faults_of(options.bus, options.log, options.before is not None), sep="\n")
        return 0
    seeds = range(options.seed, options.seed + options.schedules)
    shares = [seeds[number :: options.processes] for number in range(options.processes)]
    shares = [share for share in shares if share]
    common = Options(
        options.bus, options.log, options.fault, options.pace, options.before, options.verbose
    )
    started = time.monotonic()
    # To start all sites takes the whole machine for a while, in which nothing recovers in time.
    ready = multiprocessing.Barrier(len(shares), timeout=START_SECONDS)
    with ProcessPoolExecutor(len(shares), initializer=wait_at, initargs=(ready,)) as pool:
        jobs = [pool.submit(run_share, share, common) for share in shares]
        outcomes = [outcome for job in jobs for outcome in job.result()]
    report = {
        "schedules": len(outcomes),
        "acknowledged": sum(outcome.acknowledged for outcome in outcomes),
        "unanswered": sum(outcome.unanswered for outcome in outcomes),
        "lost": sum(len(outcome.lost) for outcome in outcomes),
        "doubled": sum(len(outcome.doubled) for outcome in outcomes),
        "out of order": sum(len(outcome.disordered) for outcome in outcomes),
        "hung": sum(len(outcome.hung) for outcome in outcomes),
        "resets": sum(outcome.resets for outcome in outcomes),
    }
    for name, count in report.items():
        print(f"{name:<16}{count:>10,}")
    recoveries = sorted(outcome.recovery for outcome in outcomes)
    print(f"{'recovery':<16}{recoveries[len(recoveries) // 2]:>10.1f} s in the middle")
    print(f"{'':<16}{recoveries[-1]:>10.1f} s at most")
    print(f"{'seconds':<16}{time.monotonic() - started:>10.0f}")
    return int(any(outcome.wrong for outcome in outcomes) or len(outcomes) < options.schedules)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
