"""What topics cost while nothing is published: `python -m benchmarks.idle`.

A fresh server for each row, on a core of its own: so many sockets, each with as many topics as
`--each` says, so that every topic has one reader. The first row has the sockets without topics:
what their heartbeats and the process itself cost. Measured is the processor time of server and
worker once all stand, over `--seconds`, and the worker's memory.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from .contestants import Contestant, everyone
from .load import STALL_SECONDS, Crowd
from .machine import Load, raise_file_limit, valkey
from .page.text import number, table_of
from .plan import Plan
from .runner import placed
from .wire import text_frame

BAR: Final = 0.01  # of a core
SUBSCRIBE: Final = '{"type":"subscribe","topic":"public.idle.%d"}'
SUBSCRIBED: Final = b'"subscribed"'
AT_ONCE: Final = 20  # sockets whose topics are subscribed together


class Idle(NamedTuple):
    """What a server used while nothing happened."""

    topics: int
    share: float  # of a core
    memory: int  # bytes of the worker


def main() -> int:
    """Measure, and print a table in Markdown; return 1 where it is above the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topics", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--each", type=int, default=50, help="topics of a socket (MAX_TOPICS)")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--log", choices=["database", "redis"], default="database")
    options = parser.parse_args()
    raise_file_limit()
    plan = placed(Plan())
    found: list[Idle] = []
    with tempfile.TemporaryDirectory(prefix="idle-") as folder, valkey(1) as redis_url:
        site = everyone()["ours"]
        site.prepare(Path(folder), redis_url, 1, 0)
        sockets = max(options.topics) // options.each
        for topics in (0, *options.topics):
            found.append(measure(site, plan, options, topics, sockets))
            print(found[-1], file=sys.stderr)
    head = ["topics", "share of a core, %", "of which the topics", "memory of a topic, KiB"]
    print(table_of(head, rows(found)))
    return int(found[-1].share - found[0].share > BAR)


def measure(site: Contestant, plan: Plan, options: Any, topics: int, sockets: int) -> Idle:
    """Return what a fresh server uses with so many topics."""
    env = {"EVENT_LOG": options.log}
    with site.serving(plan.server_core, env=env) as server:
        crowd, _ = server.websockets("/ws", site.headers("", sockets))
        with crowd:
            crowd.settle()
            subscribe(crowd, topics, options.each)
            crowd.settle(5.0, 15.0)  # new processes look often, and new topics' heads are read
            with Load(server.process) as load:
                crowd.settle(options.seconds, options.seconds)
            return Idle(topics, load.server, server.process.memory())


def subscribe(crowd: Crowd, topics: int, each: int) -> None:
    """Subscribe to the topics, `each` by one socket, and wait until all have answered."""
    fds = list(crowd.sockets)
    for start in range(0, topics, each * AT_ONCE):
        asked = range(start, min(start + each * AT_ONCE, topics))
        for topic in asked:
            sock = crowd.sockets[fds[topic // each]]
            sock.setblocking(True)
            sock.sendall(text_frame((SUBSCRIBE % topic).encode()))
            sock.setblocking(False)
        missing = len(asked)
        deadline = time.perf_counter() + 4 * STALL_SECONDS
        while missing:
            for fd, _ in crowd.epoll.poll(STALL_SECONDS):
                messages = crowd.messages(fd, crowd.sockets[fd].recv(65_536))
                missing -= sum(SUBSCRIBED in text for text in messages)
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{missing} subscriptions were not answered.")


def rows(found: Sequence[Idle]) -> list[list[str]]:
    """Return the cells of the table."""
    first = found[0]
    return [
        [
            f"{each.topics:,}",
            f"{100 * each.share:.2f}",
            f"{100 * (each.share - first.share):.2f}",
            number((each.memory - first.memory) / each.topics / 1_024) if each.topics else "",
        ]
        for each in found
    ]


if __name__ == "__main__":
    sys.exit(main())
