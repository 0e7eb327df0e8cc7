"""Broadcasts: one after another, and several under way at once.

One after another, the next is published when every socket has the last.

A broadcast reaches every socket as the same bytes. The first copy is parsed and checked; from then
on a read that equals those bytes is one whole message, counted for its socket. What differs (a
read that was split, a heartbeat) is parsed. So every copy is checked in full, and costs one
`read`, one comparison and one addition. Of several at once, a read may hold any number; each
such read is parsed once, and known by its bytes where it comes again.
"""

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from .load import EVENTS, MARK, READ, READ_MANY, STALL_SECONDS, Crowd, Tally, message
from .wire import AnswerParser, Refused, post_request

ACCEPTED = (200, 201, 202)


@dataclass
class Broadcasts:
    """A closed loop's result; times in seconds."""

    sockets: int
    count: int = 0
    published: int = 0  # what was published to warm up included
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    @property
    def rate(self) -> float:
        """Deliveries per second."""
        return self.sockets * self.count / self.seconds

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

    @cached_property
    def _publisher(self) -> socket.socket:
        return self._dial()

    def _dial(self) -> socket.socket:
        sock = socket.create_connection((self.crowd.host, self.crowd.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.crowd.epoll.register(sock.fileno(), select.EPOLLIN)
        return sock

    def run(self, seconds: float, *, at_least: int = 3, warm_up: int = 2) -> Broadcasts:
        """One after another, for so long."""
        before = self.number
        for _ in range(warm_up):
            self.once()
        tally = self.crowd.tally
        result = Broadcasts(len(self.crowd), tally=tally)
        started = time.perf_counter()
        while len(result.latencies) < at_least or time.perf_counter() - started < seconds:
            result.latencies.append(self.once())
            if tally.lost:
                break
        result.seconds, result.count = time.perf_counter() - started, len(result.latencies)
        result.published = self.number - before
        self.crowd.settle(0.05)  # for what should not come any more
        tally.strange += self._uneven()
        return result

    def _uneven(self) -> int:
        """Sockets that had a message twice where others missed it: the sum would not tell."""
        return sum(self.counts[fd] != self.number for fd in self.crowd.sockets)

    def once(self) -> float:
        """Publish one; the seconds from the POST's start to the last receiver."""
        request = self._next_request()
        _, marker = message(self.number, self.size)
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

    def run_together(self, publishers: int, seconds: float) -> Broadcasts:
        """So many publishers, each waiting for its answer alone, for so long; latencies are not
        taken. It has ended when every socket has had every message."""
        crowd, poll, read = self.crowd, self.crowd.epoll.poll, os.read
        result = Broadcasts(len(crowd), tally=crowd.tally)
        counts, sums = dict.fromkeys(crowd.sockets, 0), dict.fromkeys(crowd.sockets, 0)
        known: dict[bytes, tuple[int, int]] = {}  # whole reads: how many messages, and their sum
        first, got = self.number + 1, 0
        with self._publishers(publishers) as answers:
            started = now = time.perf_counter()
            for sock in answers:
                sock.sendall(self._next_request())
            by_fd = {sock.fileno(): sock for sock in answers}
            waiting = len(by_fd)  # for an answer
            while waiting or got < (self.number + 1 - first) * len(crowd):
                events = poll(STALL_SECONDS, EVENTS)
                if not events:
                    break
                for fd, _ in events:
                    data = read(fd, READ_MANY)
                    if fd in by_fd:
                        if _is_answered(answers[by_fd[fd]], data):
                            answers[by_fd[fd]] = AnswerParser()
                            if time.perf_counter() - started < seconds:
                                by_fd[fd].sendall(self._next_request())
                            else:
                                waiting -= 1
                        continue
                    messages = known.get(data)
                    if messages is None:
                        messages = self._parse_many(fd, data, known)
                    got += messages[0]
                    counts[fd] += messages[0]
                    sums[fd] += messages[1]
                now = time.perf_counter()
            result.seconds = now - started
            if not waiting:
                crowd.settle(0.05)  # for what should not come any more
        sent = self.number + 1 - first
        total = sum(range(first, self.number + 1))
        for fd in crowd.sockets:
            self.counts[fd] += sent
            crowd.tally.strange += counts[fd] != sent or sums[fd] != total
        crowd.tally.expected += sent * len(crowd)
        crowd.tally.received += got
        result.count = result.published = sent
        return result

    def _parse_many(
        self, fd: int, data: bytes, known: dict[bytes, tuple[int, int]]
    ) -> tuple[int, int]:
        crowd = self.crowd
        in_part = crowd.parsers[fd].partial
        numbers = [
            int(text[at + len(MARK) :].partition(b";")[0])
            for text in crowd.messages(fd, data)
            if (at := text.find(MARK)) >= 0
        ]
        messages = len(numbers), sum(numbers)
        # The rest of a split message is never mistaken for it: it does not begin like a whole one.
        if numbers and not (in_part or crowd.parsers[fd].partial or crowd.pinged):
            known[data] = messages
        return messages

    @contextmanager
    def _publishers(self, count: int) -> Iterator[dict[socket.socket, AnswerParser]]:
        sockets = [self._dial() for _ in range(count)]
        try:
            yield {sock: AnswerParser() for sock in sockets}
        finally:
            for sock in sockets:
                self.crowd.epoll.unregister(sock.fileno())
                sock.close()

    def _next_request(self) -> bytes:
        self.number += 1
        body, _ = message(self.number, self.size)
        return post_request(f"{self.crowd.host}:{self.crowd.port}", self.path, body, self.headers)

    def close(self) -> None:
        """Close the publishing connection."""
        if "_publisher" in self.__dict__:
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
