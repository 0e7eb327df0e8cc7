"""How much of a worker's processor an attack takes."""

import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from ..support.databases import new_database_url
from ..support.servers import prepare_site, serving
from .attacks import SIZE, Attack, attacks

MOST: Final = 20.0  # milliseconds for a request
QUIET_SECONDS: Final = 0.05  # without work, after which an attack is over
ANSWER_SECONDS: Final = 5.0


class Cost(NamedTuple):
    """An attack and what one of it costs."""

    name: str
    milliseconds: float  # of the processor, for each 16 KiB or part of it
    answer: str  # the first line of the answer, or what became of the connection


def run(
    repeat: int = 5, text: str = "", has_messages: bool = True
) -> tuple[list[Cost], list[Cost]]:
    """Start a site, measure every attack with this text in its name: requests, and messages."""
    costs: dict[bool, list[Cost]] = {False: [], True: []}
    with tempfile.TemporaryDirectory(prefix="realtime-hostile-") as data_dir:
        env = prepare_site(new_database_url(), data_dir)
        options = ("--workers", "1", "--", "--proxy-headers")
        with serving(env, *options, expected=["No route found for path"]) as server:
            (pid,) = server.worker_pids() or [server.process.pid]
            for name, attack in attacks():
                is_socket = bool(attack.messages)
                if text in name and (has_messages or not is_socket):
                    costs[is_socket].append(measure(server.port, pid, name, attack, repeat))
    return costs[False], costs[True]


def processor(pid: int) -> float:
    """Return the seconds that a process has run, in all of its threads."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):
            total += int(path.read_text().split()[0])
    return total / 1e9


def measure(port: int, pid: int, name: str, attack: Attack, repeat: int = 5) -> Cost:
    """Send the attack some times, one after the other; return the mean of the cheaper half."""
    costs, answer = [], ""
    for _ in range(repeat):
        if attack.messages:
            _until_idle(pid)
        before = processor(pid)
        answer = send(port, attack)
        if attack.messages:
            _until_idle(pid)
        costs.append(processor(pid) - before)
    cheaper = sorted(costs)[: (repeat + 1) // 2]
    sent = max(1.0, (len(attack.request) + len(attack.messages)) / SIZE)
    return Cost(name, 1_000 * sum(cheaper) / len(cheaper) / sent, answer)


def send(port: int, attack: Attack) -> str:
    """Send the attack on a connection of its own; return how the answer begins."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as wire:
        answer = b""
        with suppress(OSError):  # closed before all was sent, which is an answer too
            wire.sendall(attack.request)
            answer = wire.recv(65_536)
            if attack.messages:
                wire.sendall(attack.messages)
                wire.settimeout(QUIET_SECONDS)
                while wire.recv(65_536):
                    pass
    return answer.partition(b"\r\n")[0].decode("latin1").removeprefix("HTTP/1.1 ") or "closed"


def _until_idle(pid: int) -> None:
    deadline, was = time.monotonic() + ANSWER_SECONDS, -1.0
    while time.monotonic() < deadline:
        now = processor(pid)
        if now - was < 0.002:  # a timer or two
            return
        was = now
        time.sleep(QUIET_SECONDS)


def table(costs: list[Cost], count: int) -> Iterator[str]:
    """Yield the lines of a Markdown table: the attacks that cost most, the dearest first."""
    yield "| What is sent | ms per 16 KiB | Answer |"
    yield "| --- | --: | --- |"
    for cost in sorted(costs, key=lambda cost: -cost.milliseconds)[:count]:
        yield f"| {cost.name} | {cost.milliseconds:.1f} | {cost.answer} |"
