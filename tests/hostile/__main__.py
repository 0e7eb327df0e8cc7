"""Print what the dearest requests and messages of a stranger cost: `python -m tests.hostile`.

A site with SQLite and one worker, behind a proxy that it believes, gets each attack some times. A
line of the tables is an attack, the worker's milliseconds of processor time for 16 KiB of it, and
the answer. The exit code is 1 if a request costs more than `MOST`.
"""

import argparse
import sys

from .cost import MOST, run, table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--count", type=int, default=10, help="lines of each table")
    parser.add_argument("--only", default="", help="a text in the names of the attacks")
    options = parser.parse_args()
    requests, messages = run(options.repeat, options.only)
    print(*table(requests, options.count), "", *table(messages, options.count), sep="\n")
    return int(any(cost.milliseconds > MOST for cost in requests))


if __name__ == "__main__":
    sys.exit(main())
