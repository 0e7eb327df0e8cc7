"""Publish rate: a few publishers, each waiting for its answer, and one subscriber that counts."""

import os
import select
import socket
import time
from collections.abc import Iterator

from ..contestants import Contestant
from ..load import EVENTS, MARK, READ, STALL_SECONDS, Crowd, message
from ..machine import Load
from ..plan import Measurement, Plan
from ..wire import AnswerParser, Refused, post_request


def run(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """Events accepted per second; the subscriber has to get each."""
    with contestant.serving(plan.server_core) as server:
        path = f"/ws/topics/{contestant.topic}"
        crowd, _ = server.websockets(path, contestant.headers("", 1))
        with crowd:
            crowd.settle()
            body, _ = message(1)
            path = f"/topics/{contestant.topic}/events"
            request = post_request(server.host, path, body, contestant.publish_headers)
            with Load(server.process) as load:
                rate = publish(crowd, request, plan.publishers, plan.seconds)
        yield Measurement(
            f"Published by {plan.publishers} publishers",
            contestant.label,
            rate,
            "events/s",
            tally=crowd.tally,
            server_load=load.server,
            client_load=load.client,
        )


def publish(crowd: Crowd, request: bytes, publishers: int, seconds: float) -> float:
    """Closed loops of POSTs for so long; the rate of those answered."""
    sockets = [socket.create_connection((crowd.host, crowd.port)) for _ in range(publishers)]
    by_fd = {sock.fileno(): sock for sock in sockets}
    answers = {fd: AnswerParser() for fd in by_fd}
    for fd in by_fd:
        by_fd[fd].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        crowd.epoll.register(fd, select.EPOLLIN)
    started = now = time.perf_counter()
    answered = received = 0
    sent = len(sockets)
    for sock in sockets:
        sock.sendall(request)
    last = started
    while answered < sent or received < answered:
        events = crowd.epoll.poll(STALL_SECONDS, EVENTS)
        if not events:
            break
        now = time.perf_counter()
        for fd, _ in events:
            data = os.read(fd, READ)
            if fd not in by_fd:
                received += crowd.parse(fd, data, MARK)
                continue
            for status in answers[fd].feed(data):
                if status not in (200, 201, 202):
                    raise Refused(f"the POST got {status}: {answers[fd].body[:200]!r}")
                answered, last = answered + 1, now
                if now - started < seconds:
                    by_fd[fd].sendall(request)
                    sent += 1
    crowd.tally.expected += answered
    crowd.tally.received += received
    crowd.tally.strange += sent - answered
    for fd, sock in by_fd.items():
        crowd.epoll.unregister(fd)
        sock.close()
    return answered / (last - started)
