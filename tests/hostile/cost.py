"""How much of a worker's processor an attack takes."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from .attacks import SIZE, Attack

QUIET_SECONDS: Final = 0.05  # without work, after which an attack is over
ANSWER_SECONDS: Final = 5.0


class Cost(NamedTuple):
    """An attack and what one of it costs."""

    name: str
    milliseconds: float  # of the processor, for each 16 KiB or part of it
    answer: str  # the first line of the answer, or what became of the connection


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
        _until_idle(pid)
        before = processor(pid)
        answer = send(port, attack)
        _until_idle(pid)
        costs.append(processor(pid) - before)
    cheaper = sorted(costs)[: (repeat + 1) // 2]
    sent = max(1.0, (len(attack.opening) + len(attack.rest)) / SIZE)
    return Cost(name, 1_000 * sum(cheaper) / len(cheaper) / sent, answer)


def send(port: int, attack: Attack) -> str:
    """Send the attack on a connection of its own; return how the answer begins."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as wire:
        answer = b""
        with suppress(OSError):
            if attack.opening:
                wire.sendall(attack.opening)
                answer = wire.recv(65_536)
            wire.sendall(attack.rest)
            if not attack.opening:
                answer = wire.recv(65_536)
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


def dearest(costs: list[Cost], count: int) -> Iterator[Cost]:
    """Yield the attacks that cost most, the dearest first."""
    yield from sorted(costs, key=lambda cost: -cost.milliseconds)[:count]
