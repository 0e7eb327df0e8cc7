"""Print what the dearest requests of a stranger cost: `python -m tests.hostile`.

A site with SQLite and one worker gets each attack some times; a line of the table is an attack, the
worker's milliseconds of processor time for 16 KiB of it, and the answer. The exit code is 1 if one
costs more than `MOST`.
"""

import argparse
import sys
import tempfile

from ..support.databases import new_database_url
from ..support.servers import SiteServer, prepare_site
from .attacks import attacks
from .cost import Cost, dearest, measure

MOST = 20.0  # milliseconds


def run(repeat: int, text: str = "") -> list[Cost]:
    """Start a site and measure every attack with this text in its name."""
    with tempfile.TemporaryDirectory(prefix="realtime-hostile-") as data_dir:
        server = SiteServer(prepare_site(new_database_url(), data_dir), "--workers", "1")
        server.expected.append("")
        try:
            (pid,) = server.worker_pids() or [server.process.pid]
            return [
                measure(server.port, pid, name, attack, repeat)
                for name, attack in attacks()
                if text in name
            ]
        finally:
            server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--count", type=int, default=20, help="lines of the table")
    parser.add_argument("--only", default="", help="a text in the names of the attacks")
    options = parser.parse_args()
    costs = run(options.repeat, options.only)
    print("| What is sent | ms per 16 KiB | Answer |\n| --- | --: | --- |")
    for cost in dearest(costs, options.count):
        print(f"| {cost.name} | {cost.milliseconds:.1f} | {cost.answer} |")
    return int(any(cost.milliseconds > MOST for cost in costs))


if __name__ == "__main__":
    sys.exit(main())
