"""What the limits and the metrics cost: `python -m benchmarks.costs`.

Measured is the server's processor time for a publication, and for a broadcast to many readers, with
the limits (or the counting) on and off: in turns, round by round, within one server process. The
limits have their defaults, and nobody meets them: a refused publication is an error here. Each
round has a ratio to its neighbour; compared with the bar is the median ratio. The exit code is 1
where one is above its bar, or something was lost or refused.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles, stdev
from typing import Any, Final, NamedTuple
from urllib.request import urlopen

from .broadcasts import Broadcaster
from .contestants import SESSION, TOKEN, Ours, Server
from .jobs.publish import converse, publish
from .load import Crowd, message
from .machine import Load, raise_file_limit
from .page.text import number, table_of
from .plan import Plan
from .runner import placed
from .wire import WebSocketParser, post_request, websocket_request

BARS: Final = {"limits": 1.02, "counting": 1.01}
TOPIC: Final = "public.bench"
SENDERS: Final = 64  # so many that none comes near the rate of a WebSocket
POSTERS: Final = 8  # the same of a token
USERS: Final = 100


class Instrumented(Ours):
    """Our server with switches inside."""

    def command(self, port: int, *, probed: bool, workers: int) -> Sequence[str]:
        serve = super().command(port, probed=probed, workers=workers)[:4]
        settings = ["--settings", "benchmarks.instrumented", "--workers", str(workers)]
        # The load client answers pings only when it reads.
        rest = ["--", "-v", "0", "--ping-interval", "60", "--ping-timeout", "60"]
        return [*serve, str(port), *settings, *rest]


class Round(NamedTuple):
    """What was done in one round, and the server's processor time for it."""

    operations: int
    seconds: float

    @property
    def cost(self) -> float:
        """Microseconds for an operation."""
        return self.seconds / self.operations * 1e6


class Cost(NamedTuple):
    """What a switch costs at one operation; microseconds, pair by pair."""

    switch: str
    operation: str
    off: list[float]
    on: list[float]

    @property
    def ratios(self) -> list[float]:
        """On to off, of neighbours."""
        return [on / off for on, off in zip(self.on, self.off, strict=True)]

    @property
    def is_within(self) -> bool:
        """Whether the median ratio is not above the bar."""
        return median(self.ratios) <= BARS[self.switch]

    def as_row(self) -> list[str]:
        """The cells of the table."""
        ratios = self.ratios
        low, _, high = quantiles(ratios, n=4, method="inclusive")
        error = 1.2533 * stdev(ratios) / math.sqrt(len(ratios))  # of a median, roughly
        return [
            f"{self.switch}: {self.operation}",
            number(median(self.off)),
            number(median(self.on)),
            f"{median(ratios):.4f}",
            f"{error:.4f}",
            f"{low:.3f} to {high:.3f}",
            f"{BARS[self.switch]:.2f}",
            "ok" if self.is_within else "**above**",
        ]


def main() -> int:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--of", nargs="+", choices=list(BARS), default=list(BARS), metavar="WHAT", help=str([*BARS])
    )
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a round")
    parser.add_argument("--readers", type=int, default=500, help="of the broadcasts")
    parser.add_argument("--output", type=Path, metavar="JSON", help="all rounds")
    options = parser.parse_args()
    raise_file_limit()
    plan = placed(Plan())
    costs: list[Cost] = []
    with tempfile.TemporaryDirectory(prefix="costs-") as folder:
        site = Instrumented("ours", "Ours", (SESSION, TOKEN), "room.bench", TOPIC)
        site.prepare(Path(folder), "", USERS, 0)
        for switch in options.of:
            with site.serving(plan.server_core, env={"LIMITS": "on"}) as server:
                costs += measure(server, switch, options)
    head = ["processor time, us", "off", "on", "on / off", "+-", "middle half", "bar", ""]
    print("\n" + table_of(head, [cost.as_row() for cost in costs]))
    if options.output:
        options.output.write_text(json.dumps([cost._asdict() for cost in costs], indent=1) + "\n")
    return 0 if all(cost.is_within for cost in costs) else 1


def measure(server: Server, switch: str, options: Any) -> Iterator[Cost]:
    """Measure what a switch costs at each operation."""
    ways: dict[str, Callable[[Server, float], Round]] = {
        "a publication over WebSocket": by_websocket,
        "a publication by POST": by_post,
    }
    for operation, take in ways.items():
        yield in_turns(server, switch, operation, options, take)
    if switch == "counting":
        # 500 readers with one name are more than a user may have.
        ask(server, "limits/off")
        path = f"/ws/topics/{TOPIC}"
        crowd, _ = server.websockets(path, server.contestant.headers("", options.readers))
        target = f"/topics/{TOPIC}/events"
        with crowd, Broadcaster(crowd, target, server.contestant.publish_headers) as broadcaster:
            crowd.settle()

            def broadcast(server: Server, seconds: float) -> Round:
                with Load(server.process) as load:
                    found = broadcaster.run(seconds, warm_up=0)
                _require(crowd)
                return Round(found.published, load.server_seconds)

            operation = f"a broadcast to {options.readers} readers"
            yield in_turns(server, switch, operation, options, broadcast)


def in_turns(
    server: Server,
    switch: str,
    operation: str,
    options: Any,
    take: Callable[[Server, float], Round],
) -> Cost:
    """Take rounds with the switch off and on; which comes first changes each time."""
    cost = Cost(switch, operation, [], [])
    take(server, options.seconds)  # to warm up
    for pair in range(options.pairs):
        for state in ("off", "on") if pair % 2 else ("on", "off"):
            ask(server, f"{switch}/{state}")
            (cost.on if state == "on" else cost.off).append(take(server, options.seconds).cost)
        print(f"{pair + 1}: {switch}, {operation}: {cost.ratios[-1]:.3f}", file=sys.stderr)
    ask(server, f"{switch}/on")
    return cost


def by_websocket(server: Server, seconds: float) -> Round:
    """Publish over many WebSockets, each another user's and waiting for its answer."""
    with dial(server, [f"{TOPIC}{number}" for number in range(SENDERS)]) as crowd:
        with Load(server.process) as load:
            converse(crowd, seconds, {}, acknowledged=True)
        _require(crowd)
        return Round(crowd.tally.received, load.server_seconds)


def by_post(server: Server, seconds: float) -> Round:
    """Publish by POST, each with a token of its own, to a reader who has to get each."""
    with dial(server, [TOPIC]) as crowd:
        body, _ = message(1)
        path, tokens = f"/topics/{TOPIC}/events", server.contestant.headers(TOKEN, POSTERS)
        requests = [post_request(server.host, path, body, token) for token in tokens]
        with Load(server.process) as load:
            publish(crowd, requests, seconds)
        _require(crowd)
        return Round(crowd.tally.received, load.server_seconds)


def dial(server: Server, topics: Sequence[str]) -> Crowd:
    """A WebSocket of another user on each topic."""
    crowd = Crowd(server.process.port, WebSocketParser)
    lines = server.contestant.headers(SESSION, len(topics))
    crowd.open(
        websocket_request(server.host, f"/ws/topics/{topic}", line)
        for topic, line in zip(topics, lines, strict=True)
    )
    crowd.settle(0.1)
    return crowd


def ask(server: Server, what: str) -> int:
    """Turn a switch; the statements of presence so far."""
    with urlopen(f"http://{server.host}/instrument/{what}", timeout=30) as answer:
        return int(answer.read())


def _require(crowd: Crowd) -> None:
    if not crowd.tally.is_clean:
        raise RuntimeError(f"Something was lost, refused or came twice: {crowd.tally}.")


if __name__ == "__main__":
    sys.exit(main())
