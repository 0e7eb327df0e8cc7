"""What has to hold with many, in exact counts: `python -m benchmarks.held`.

- `limits`: one user with sockets on four workers. As a flood that heeds nothing: what is let
  through. And obedient, waiting as long as they are told: nothing is lost, nothing comes twice.
- `joins`: 2,000 users who come to watched topics at once: frames to each reader, SQL statements,
  processor time beside that of topics without presence, and memory at its peak.
- `killed`, `restarted`, `sums`: tests over real sockets with more users than in a usual run: one of
  two workers is killed; all are replaced; metrics before and after both.

The exit code is 1 where something does not hold.
"""

import argparse
import asyncio
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from itertools import cycle
from pathlib import Path
from typing import Any, Final, NamedTuple

import websockets

from tests.support.clients import connect, session_cookie
from tests.support.servers import SiteServer, prepare_site, serving
from tests.support.sites import SiteShell, shortened

from .contestants import SESSION, TOKEN, Server
from .costs import Instrumented, ask
from .load import EVENTS, READ_MANY, Crowd
from .machine import raise_file_limit
from .page.text import number, table_of
from .plan import Plan
from .runner import placed
from .wire import WebSocketParser, text_frame, websocket_request

WORKERS: Final = 4
SOCKETS: Final = 16
RATE: Final = 50.0
BURST: Final = 100
TOLERANCE: Final = 0.1  # of the rate, once the processes know of each other
FLOOD_SECONDS: Final = 16.0
EACH: Final = 60  # publications of an obedient socket
LIMITS: Final = {
    "RATE_PUBLISHES_PER_USER": f"{RATE:.0f}/s burst {BURST}",
    "RATE_PUBLISHES": None,
    "RATE_MESSAGES": None,
    "HAMMERING_REFUSALS": 1_000_000,
}
STORED: Final = """
from realtime.models import Event
events = Event.objects.order_by("topic_id", "offset").values_list("topic__name", "data")
result = [[topic, data] for topic, data in events if topic.startswith({!r})]
"""

JOINS: Final = 2_000
READERS: Final = 50  # of all topics together
QUIET_SECONDS: Final = 8.0  # after the joins: the next count of a large topic has come by then
STATEMENT_ROWS: Final = 166  # of SQLite
STATEMENTS_A_TURN: Final = 6  # besides: write, look, read again
TESTS: Final = {
    "killed": ("tests/whole/test_presence.py", "killed", {"USERS": "50", "TABS": "3"}),
    "restarted": ("tests/whole/test_presence.py", "replaced", {"USERS": "200", "TABS": "1"}),
    "sums": ("tests/whole/test_metrics.py", "", {}),
}


class Line(NamedTuple):
    """Something that was found, and whether it is as it has to be."""

    what: str
    found: str
    wanted: str
    holds: bool


def main() -> int:
    """Take the measures that are named, and print a table in Markdown."""
    names = ["limits", *TESTS, "joins"]  # which goes on on one core: it is the last
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--of", nargs="+", choices=names, default=names, help=f"default: {names}")
    options = parser.parse_args()
    raise_file_limit()
    lines: list[Line] = []
    for name in sorted(options.of, key=names.index):
        print(f"{name} ...", file=sys.stderr, flush=True)
        if name in TESTS:
            lines.append(tested(name))
        else:
            lines += asyncio.run(limits()) if name == "limits" else joins()
    rows = [[*line[:3], "yes" if line.holds else "**no**"] for line in lines]
    print(table_of(["", "found", "wanted", "holds"], rows))
    return 0 if all(line.holds for line in lines) else 1


def tested(name: str) -> Line:
    """Run a test with many users."""
    path, words, sizes = TESTS[name]
    env = os.environ | {f"PRESENCE_{size}": value for size, value in sizes.items()}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path, "-k", words]
    began = time.monotonic()
    done = subprocess.run(command, env=env, stdout=sys.stderr)
    what = " ".join(f"{size.lower()} {value}" for size, value in sizes.items())
    found = f"exit code {done.returncode} after {time.monotonic() - began:.0f} s"
    return Line(f"{name}: {path} {what}".rstrip(), found, "exit code 0", done.returncode == 0)


# -- limits


async def limits() -> list[Line]:
    """One user on four workers, first as a flood, then obedient."""
    with tempfile.TemporaryDirectory(prefix="held-") as folder:
        site = prepare_site(f"sqlite:///{folder}/site.sqlite3", folder)
        env = shortened(site, LIMITS)
        workers = ("--workers", str(WORKERS))
        with serving(env, *workers) as server, closing(SiteShell(env)) as shell:
            return [*await flooded(server, shell), *await obeyed(server, shell)]


async def flooded(server: SiteServer, shell: SiteShell) -> list[Line]:
    """Publish over all sockets without a pause, for a while."""
    cookie = session_cookie(server, "alice")
    passed: list[float] = []

    async def flood(name: int) -> None:
        async with connect(f"{server.ws_url}/ws/topics/room.flood{name}", **cookie) as socket:
            await asyncio.sleep(3)  # until the processes know of each other
            end = time.monotonic() + FLOOD_SECONDS
            while time.monotonic() < end:
                if (await publish(socket, len(passed)))["type"] == "published":
                    passed.append(time.monotonic())

    cookie = {"additional_headers": cookie}
    await asyncio.gather(*(flood(name) for name in range(SOCKETS)))
    stored = shell.run(STORED.format("room.flood"))
    middle = passed[-1] - FLOOD_SECONDS / 2
    late = sum(at > middle for at in passed) / (FLOOD_SECONDS / 2)
    most = WORKERS * BURST + RATE * FLOOD_SECONDS * (1 + TOLERANCE)
    least = RATE * FLOOD_SECONDS
    low, high = RATE * (1 - TOLERANCE), RATE * (1 + TOLERANCE)
    return [
        Line(
            "flood: acknowledged, and stored",
            f"{len(passed)}, {len(stored)}",
            "the same",
            len(passed) == len(stored),
        ),
        Line(
            f"flood: in {FLOOD_SECONDS:.0f} s",
            str(len(passed)),
            f"{least:.0f} to {most:.0f}",
            least <= len(passed) <= most,
        ),
        Line(
            "flood: a second, in the second half",
            number(late),
            f"{low:.0f} to {high:.0f}",
            low <= late <= high,
        ),
    ]


async def obeyed(server: SiteServer, shell: SiteShell) -> list[Line]:
    """Publish a number of events over each socket, and wait as long as told."""
    cookie = session_cookie(server, "bob")
    refused = 0

    async def obey(name: int) -> None:
        nonlocal refused
        url = f"{server.ws_url}/ws/topics/room.obey{name:02}"
        async with connect(url, additional_headers=cookie) as socket:
            await asyncio.sleep(3)
            for event in range(EACH):
                while (answer := await publish(socket, event))["type"] != "published":
                    refused += 1
                    await asyncio.sleep(answer["retry_after"])

    began = time.monotonic() + 3
    await asyncio.gather(*(obey(name) for name in range(SOCKETS)))
    seconds = time.monotonic() - began
    sent = [[f"room.obey{name:02}", str(event)] for name in range(SOCKETS) for event in range(EACH)]
    stored = sorted(shell.run(STORED.format("room.obey")), key=lambda row: row[0])
    most = WORKERS * BURST + RATE * seconds * (1 + TOLERANCE)
    return [
        Line(
            "obedient: sent, stored once and in order",
            f"{len(sent)}, {len(stored)}",
            "the same",
            stored == sent,
        ),
        Line(
            f"obedient: in {seconds:.1f} s, after {refused} refusals",
            str(len(stored)),
            f"{most:.0f} at most",
            refused > 0 and len(stored) <= most,
        ),
    ]


async def publish(socket: websockets.ClientConnection, data: Any) -> Any:
    """Publish; the answer to it."""
    await socket.send(json.dumps({"type": "publish", "data": data}))
    while (answer := json.loads(await socket.recv()))["type"] not in ("published", "error"):
        pass
    assert answer["type"] == "published" or answer["code"] == "rate_limited", answer
    return answer


# -- joins


def joins() -> list[Line]:
    """2,000 who come at once, to small topics, to one large one, and to some without presence."""
    plan = placed(Plan())
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="held-") as folder:
        site = Instrumented("ours", "Ours", (SESSION, TOKEN), "room.bench", "public.bench")
        site.prepare(Path(folder), "", JOINS + 100, 0)
        for name, topics in (
            ("without presence", [f"public.{number}" for number in range(25)]),
            ("25 topics", [f"room.{number}" for number in range(25)]),
            ("1 topic", ["room.large"]),
        ):
            with site.serving(plan.server_core) as server:
                lines += join(server, name, topics)
    return lines


def join(server: Server, name: str, topics: list[str]) -> list[Line]:
    """Have all come to these topics; what it took, and what the readers were told."""
    has_presence = topics[0].startswith("room.")
    users = server.contestant.headers(SESSION, JOINS + 100)
    come, readers = (Crowd(server.process.port, WebSocketParser) for _ in range(2))
    with come, readers:
        come.open([websocket_request(server.host, "/ws", next(users)) for _ in range(JOINS)])
        watched = [
            topic for topic, _ in zip(cycle(topics), range(READERS * has_presence), strict=False)
        ]
        readers.open(
            websocket_request(server.host, f"/ws/topics/{topic}?presence=1", next(users))
            for topic in watched
        )
        come.settle()
        readers.settle(2.5)
        before, cpu, memory = ask(server, ""), server.process.cpu(), server.process.forget_peak()
        began = time.monotonic()
        for sock, topic in zip(come.sockets.values(), cycle(topics), strict=False):
            sock.sendall(text_frame(json.dumps({"type": "subscribe", "topic": topic}).encode()))
        answers = sum(len(texts) for texts in hear(come, until=JOINS).values())
        seconds = time.monotonic() - began
        told = hear(readers, seconds=QUIET_SECONDS if has_presence else 1.0)
        cpu = server.process.cpu() - cpu
        growth = (server.process.peak_memory() - memory) / 2**20
        statements = ask(server, "") - before
    turns = math.ceil(seconds) + QUIET_SECONDS + 1
    most = math.ceil(JOINS / STATEMENT_ROWS) + STATEMENTS_A_TURN * turns if has_presence else 0
    used = f"{cpu:.2f} s of processor, {growth:.1f} MiB at the peak"
    lines = [
        Line(f"joins, {name}: {answers} within {seconds:.1f} s", used, "", answers == JOINS),
        Line(
            f"joins, {name}: statements", str(statements), f"{most:.0f} at most", statements <= most
        ),
    ]
    if has_presence:
        lines.append(frames_of(name, told, len(topics), math.ceil(seconds)))
    return lines


def frames_of(name: str, told: dict[int, list[bytes]], topics: int, seconds: int) -> Line:
    """Return whether each reader was told of all who came, and in few frames."""
    expected, is_listed = JOINS // topics, topics > 1
    frames = {
        fd: [frame for text in texts if (frame := json.loads(text))["type"] == "presence"]
        for fd, texts in told.items()
    }
    counts = [len(each) for each in frames.values()]
    most = seconds + 1
    holds = max(counts) <= most and min(counts) > 0
    for each in frames.values():
        holds = holds and each[-1]["connections"] == expected + READERS // topics
        if is_listed:
            joined = [user["id"] for frame in each for user in frame["joined"]]
            left = [user for frame in each for user in frame["left"]]
            holds = holds and len(joined) == len({*joined}) == expected and not left
    what = "each who came, once" if is_listed else "how many are there"
    found = f"{min(counts)} to {max(counts)} for each of {len(counts)}"
    return Line(f"joins, {name}: frames to a reader", found, f"{most} at most; {what}", holds)


def hear(crowd: Crowd, *, seconds: float = 60.0, until: int = 0) -> dict[int, list[bytes]]:
    """What comes to each socket, for so long, or until there are so many messages of all."""
    heard: dict[int, list[bytes]] = {fd: [] for fd in crowd.sockets}
    deadline, count = time.monotonic() + seconds, 0
    while (left := deadline - time.monotonic()) > 0 and not (until and count >= until):
        for fd, _ in crowd.epoll.poll(left, EVENTS):
            texts = crowd.messages(fd, os.read(fd, READ_MANY))
            texts = [text for text in texts if text != b'{"type":"ping"}']
            heard[fd] += texts
            count += len(texts)
    return heard


if __name__ == "__main__":
    sys.exit(main())
