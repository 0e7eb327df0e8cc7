"""`python -m benchmarks.parsers`: our parsers beside those of libraries, in microseconds.

A parser is written by hand only where that pays. The head of a request is compared with httptools
and h11, frames of a WebSocket with websockets; each also with a parser that is made for the one
message, as for a connection that keeps none while it is idle.

Libraries check less: httptools takes requests that have no Host or two, and websockets hands over
text that is not UTF-8 (frames here are binary for that reason). What is parsed is compared first.
"""

import argparse
import logging
import os
import sys
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import h11
import httptools
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from realtime.server.frames import FrameParser, parse_whole
from realtime.server.http_request import parse_head
from realtime.server.limits import Limits

from .page.text import number, table_of

ROUNDS: Final = 9
ROUND_SECONDS: Final = 0.02
OURS: Final = "ours"
MAX: Final = 2**20  # bytes of a message
LIMITS: Final = Limits()
LOGGER: Final = logging.getLogger(__name__)  # without one, a Protocol makes one of its own
SMALL: Final = (
    b"Host: example.org",
    b"User-Agent: curl/8.5.0",
    b"Accept: */*",
    b"Connection: keep-alive",
)
BROWSER: Final = (
    *SMALL,
    b'sec-ch-ua: "Chromium";v="140", "Not=A?Brand";v="24", "Google Chrome";v="140"',
    b"sec-ch-ua-mobile: ?0",
    b'sec-ch-ua-platform: "Linux"',
    b"Upgrade-Insecure-Requests: 1",
    b"Sec-Fetch-Site: same-origin",
    b"Sec-Fetch-Mode: navigate",
    b"Sec-Fetch-Dest: document",
    b"Referer: https://example.org/demo/",
    b"Accept-Encoding: gzip, deflate, br, zstd",
    b"Accept-Language: en-US,en;q=0.9,de;q=0.8",
    b"Cookie: csrftoken=4J0mM1xqz9sZ2h8yQd3o; sessionid=9v8k2m4xw1q7t6r5e3y2u1i0o9p8a7s6",
)
TARGET: Final = b"/topics/public.bench/events?after=12"
Call = Callable[[], Any]
Case = tuple[str, dict[str, Call]]  # what is parsed, and by which parsers


def heads() -> Iterator[Case]:
    """Requests with few headers and with a browser's."""
    for lines in (SMALL, BROWSER):
        data = b"\r\n".join((b"GET " + TARGET + b" HTTP/1.1", *lines)) + b"\r\n\r\n"
        calls = {
            OURS: lambda data=data: _by_us(data),
            "httptools": lambda data=data: Collected(data).found,
            "h11": lambda data=data: _by_h11(data),
        }
        yield f"a request's head, {len(lines)} headers", calls


def _by_us(data: bytes) -> Any:
    head = parse_head(data[: data.find(b"\r\n\r\n")], LIMITS)
    return head.method, head.target, head.headers


class Collected:
    """What httptools finds in a head: method, target and headers."""

    def __init__(self, data: bytes) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._target = b""
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(data)
        self.found = parser.get_method(), self._target, self._headers

    def on_url(self, target: bytes) -> None:
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))


def _by_h11(data: bytes) -> Any:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    head = connection.next_event()
    assert isinstance(head, h11.Request)
    return head.method, head.target, list(head.headers)


def frames() -> Iterator[Case]:
    """Masked frames as a client sends them, in one read and in several."""
    small, large = _frame(20), _frame(65_536)
    for name, reads in (
        ("a frame of 20 B", [small]),
        ("a frame of 64 KiB in one read", [large]),
        ("a frame of 64 KiB in four reads", _cut(large, 4)),
    ):
        kept, theirs = FrameParser(MAX, MAX), _protocol()
        calls = {
            f"{OURS}, kept": lambda reads=reads, kept=kept: _feed(kept, reads),
            f"{OURS}, made for it": lambda reads=reads: _feed(FrameParser(MAX, MAX), reads),
            "websockets, kept": lambda reads=reads, theirs=theirs: _receive(theirs, reads),
            "websockets, made for it": lambda reads=reads: _receive(_protocol(), reads),
        }
        if reads == [small]:
            calls[f"{OURS}, without a parser"] = lambda: [parse_whole(small, MAX)]
        yield name, calls


def _cut(data: bytes, count: int) -> list[bytes]:
    size = -(-len(data) // count)
    return [data[at : at + size] for at in range(0, len(data), size)]


def _frame(size: int) -> bytes:
    return Frame(Opcode.BINARY, os.urandom(size)).serialize(mask=True)


def _feed(parser: FrameParser, reads: Sequence[bytes]) -> Any:
    found = []
    for data in reads:
        parser.feed(data)
        while frame := parser.next():
            found.append(frame.payload)
    return found


def _protocol() -> Protocol:
    return Protocol(Side.SERVER, state=State.OPEN, max_size=MAX, logger=LOGGER)


def _receive(protocol: Protocol, reads: Sequence[bytes]) -> Any:
    found = []
    for data in reads:
        protocol.receive_data(data)
        found += [event.data for event in protocol.events_received()]
    return found


def measure(calls: dict[str, Call], seconds: float = ROUND_SECONDS) -> dict[str, float]:
    """Microseconds of processor time of each call, the median of rounds in which they take turns.

    Raises ValueError when they do not find the same.
    """
    first, *others = [(name, call()) for name, call in calls.items()]
    for name, found in others:
        if found != first[1]:
            raise ValueError(f"{name} found {found!r:.300}, {first[0]} {first[1]!r:.300}")
    timers = {name: timeit.Timer(call, timer=time.process_time) for name, call in calls.items()}
    counts = {name: _count(timer, seconds) for name, timer in timers.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, timer in timers.items():
            times[name].append(timer.timeit(counts[name]) / counts[name])
    return {name: median(found) * 1e6 for name, found in times.items()}


def _count(timer: timeit.Timer, seconds: float) -> int:
    """How many calls take so long."""
    count = 1
    while (used := timer.timeit(count)) < seconds / 4:
        count *= 2
    return max(1, int(count * seconds / used))


def table(seconds: float = ROUND_SECONDS) -> str:
    """All of it as Markdown; ratios are to ours, the kept one."""
    lines = []
    for name, calls in (*heads(), *frames()):
        times = measure(calls, seconds)
        ours = next(iter(times.values()))
        for parser, taken in times.items():
            lines.append((name, parser, f"{number(taken)} us", f"{taken / ours:.2f}x"))
    return table_of(("what", "parser", "median", "to ours"), lines, left=2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser("python -m benchmarks.parsers", description=__doc__)
    parser.add_argument("--output", type=Path, metavar="FILE", help="the Markdown file to write")
    options = parser.parse_args(arguments)
    text = table()
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
