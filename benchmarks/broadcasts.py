"""The closed loop of a broadcast: publish one, wait until every socket has it.

A broadcast reaches every socket as the same bytes. The first copy is parsed and checked; from then
on a read that equals those bytes is one whole message, counted for its socket. What differs (a
read that was split, a heartbeat) is parsed. So every copy is checked in full, and costs one
`read`, one comparison and one addition.
"""

import os
import select
import socket
import time
from dataclasses import dataclass, field

from .load import EVENTS, READ, STALL_SECONDS, Crowd, Tally, message
from .wire import AnswerParser, Refused, post_request

ACCEPTED = (200, 201, 202)


@dataclass
class Broadcasts:
    """A closed loop's result; times in seconds."""

    sockets: int
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    @property
    def rate(self) -> float:
        """Deliveries per second."""
        return self.sockets * len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """The latency that this share of the broadcasts did not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Broadcaster:
    """Publishes by POST on a connection of its own, and collects from a crowd."""

    def __init__(self, crowd: Crowd, path: str, headers: bytes = b"", size: int = 100) -> None:
        self.crowd = crowd
        self.path = path
        self.headers = headers
        self.size = size
        self.number = 0
        self.counts = [0] * (max(crowd.sockets) + 1)  # messages by file descriptor
        self._publisher = socket.create_connection((crowd.host, crowd.port))
        self._publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        crowd.epoll.register(self._publisher.fileno(), select.EPOLLIN)

    def run(self, seconds: float, *, at_least: int = 3, warm_up: int = 2) -> Broadcasts:
        """One after another, for so long."""
        for _ in range(warm_up):
            self.once()
        tally = self.crowd.tally
        result = Broadcasts(len(self.crowd), tally=tally)
        started = time.perf_counter()
        while len(result.latencies) < at_least or time.perf_counter() - started < seconds:
            result.latencies.append(self.once())
            if tally.lost:
                break
        result.seconds = time.perf_counter() - started
        self.crowd.settle(0.05)  # for what should not come any more
        tally.strange += self._uneven()
        return result

    def _uneven(self) -> int:
        """Sockets that had a message twice where others missed it: the sum would not tell."""
        return sum(self.counts[fd] != self.number for fd in self.crowd.sockets)

    def once(self) -> float:
        """Publish one; the seconds from the POST's start to the last receiver."""
        self.number += 1
        body, marker = message(self.number, self.size)
        host = f"{self.crowd.host}:{self.crowd.port}"
        request = post_request(host, self.path, body, self.headers)
        started = time.perf_counter()
        self._publisher.sendall(request)
        return self._gather(marker) - started

    def _gather(self, marker: bytes) -> float:
        """Read until all have the message and the POST has its answer; when the last one had."""
        crowd, counts, answer = self.crowd, self.counts, AnswerParser()
        poll, read, publisher = crowd.epoll.poll, os.read, self._publisher.fileno()
        wanted, got, finished, answered = len(crowd), 0, 0.0, False
        model = b"\0"
        while not finished or not answered:
            events = poll(STALL_SECONDS, EVENTS)
            if not events:
                finished = time.perf_counter()
                break
            for fd, _ in events:
                data = read(fd, READ)
                # The rest of a split message is never mistaken: it does not begin like a whole one.
                if data == model:
                    got += 1
                    counts[fd] += 1
                elif fd == publisher:
                    answered = _is_answered(answer, data)
                else:
                    in_part = crowd.parsers[fd].partial
                    copies = crowd.parse(fd, data, marker)
                    got += copies
                    counts[fd] += copies
                    whole = not (in_part or crowd.parsers[fd].partial)
                    if copies == 1 and whole and not crowd.pinged:  # each ping wants its answer
                        model = data
            if got >= wanted and not finished:
                finished = time.perf_counter()
        crowd.tally.expected += wanted
        crowd.tally.received += got
        return finished

    def close(self) -> None:
        """Close the publishing connection."""
        self._publisher.close()

    def __enter__(self) -> "Broadcaster":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _is_answered(answer: AnswerParser, data: bytes) -> bool:
    if not data:
        raise ConnectionError("The server closed the publisher's connection.")
    statuses = answer.feed(data)
    if statuses and statuses[0] not in ACCEPTED:
        raise Refused(f"the POST got {statuses[0]}: {answer.body[:200]!r}")
    return bool(statuses)
