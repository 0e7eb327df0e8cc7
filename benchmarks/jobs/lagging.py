"""Fan-out where one socket in ten is full: its client does not read, and later wants all of it.

Two figures: what the others get while the full sockets stand still, and how quickly those have what
they missed, once their clients read again.
"""

import os
import time
from collections.abc import Iterator

from ..broadcasts import Broadcaster
from ..contestants import Contestant, Server
from ..load import EVENTS, FILLS, MARK, READ_MANY, STALL_SECONDS, Crowd
from ..machine import Load
from ..plan import Measurement, Plan

SHARE = 10  # one in so many is full
FILLER = 8_000  # bytes of a message
FILLERS = FILLS // FILLER


def run(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """Fill some sockets, publish past them, then let them read."""
    if not contestant.may_be_silent:
        return
    path = f"/ws/topics/{contestant.topic}"
    full = plan.busy // SHARE
    with contestant.serving(plan.server_core) as server:
        late, _ = server.websockets(path, contestant.headers("", full), is_narrow=True)
        crowd, _ = server.websockets(path, contestant.headers("", plan.busy - full))
        with late, crowd:
            late.settle()
            yield from _measure(server, crowd, late, plan)


def _measure(server: Server, crowd: Crowd, late: Crowd, plan: Plan) -> Iterator[Measurement]:
    contestant = server.contestant
    path, headers = f"/topics/{contestant.topic}/events", contestant.publish_headers
    with Broadcaster(crowd, path, headers, FILLER) as broadcaster:
        crowd.settle()
        for _ in range(FILLERS):
            broadcaster.once()
        broadcaster.size = 100
        started = time.perf_counter()
        with Load(server.process) as load:
            for _ in range(plan.missed):
                broadcaster.once()
        seconds = time.perf_counter() - started
        last = broadcaster.number
    count = plan.missed * len(crowd)
    yield Measurement(
        f"WebSocket fan-out to {len(crowd):,} beside {len(late):,} full sockets",
        contestant.label,
        count / seconds,
        "deliveries/s",
        tally=crowd.tally,
        server_load=load.server,
        client_load=load.client,
        cost=load.per(count),
    )
    with Load(server.process) as load:
        seconds = catch_up(late, last)
    yield Measurement(
        f"{len(late):,} full sockets catch up",
        contestant.label,
        late.tally.received / seconds,
        "events/s",
        tally=late.tally,
        server_load=load.server,
        client_load=load.client,
        cost=load.per(late.tally.received),
    )


def catch_up(crowd: Crowd, last: int) -> float:
    """Read until each has the messages 1 to `last`, in order; the seconds it took."""
    reached = dict.fromkeys(crowd.sockets, 0)
    missing = len(reached)
    crowd.tally.expected += last * missing
    started = time.perf_counter()
    crowd.widen()
    while missing and (events := crowd.epoll.poll(STALL_SECONDS, EVENTS)):
        for fd, _ in events:
            for number in numbers_in(crowd.messages(fd, os.read(fd, READ_MANY))):
                is_next = number == reached[fd] + 1
                reached[fd] += is_next
                crowd.tally.received += is_next
                crowd.tally.strange += not is_next
                missing -= is_next and number == last
    return time.perf_counter() - started


def numbers_in(messages: list[bytes]) -> Iterator[int]:
    """The numbers of the marked messages."""
    for text in messages:
        if (at := text.find(MARK)) >= 0:
            yield int(text[at + len(MARK) :].partition(b";")[0])
