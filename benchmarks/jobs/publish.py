"""Publish rate: a few publishers, each waiting for its answer, and every event counted.

By POST on one topic, with one subscriber. And by WebSocket, each publisher on a topic of its own,
which it hears too: there ours can be asked to leave the log out (`ephemeral`). FastAPI keeps events
in a Redis Stream, and Channels' tutorial keeps none.
"""

import json
import os
import select
import socket
import time
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final

from ..contestants import NO_AUTH, Contestant, Server
from ..load import EVENTS, MARK, READ, STALL_SECONDS, Crowd, message
from ..machine import Load
from ..plan import Measurement, Plan
from ..wire import (
    AnswerParser,
    Refused,
    WebSocketParser,
    post_request,
    text_frame,
    websocket_request,
)

LOGS: Final = {  # what a publisher adds to its messages, by what then happens to them
    "ours": {"in the log": {}, "without the log": {"ephemeral": True}},
    "fastapi": {"in a Redis Stream": {}},
    "stock": {"has no log": {}},
}
PUBLISHED: Final = b'"published"'


def run(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """Both ways in."""
    with contestant.serving(plan.server_core) as server:
        yield by_post(server, plan)
        for name, extra in LOGS[contestant.name].items():
            yield by_websocket(server, plan, name, extra)
        server.process.end()  # else it counts as another host for the next one, till its lease ends
    if contestant.name == "ours":
        with contestant.serving(plan.server_core, env={"EVENT_LOG": "redis"}) as server:
            yield by_websocket(server, plan, "in the log in Redis", {})


def by_post(server: Server, plan: Plan) -> Measurement:
    """Events accepted per second; the subscriber has to get each."""
    contestant = server.contestant
    path = f"/ws/topics/{contestant.topic}"
    crowd, _ = server.websockets(path, contestant.headers("", 1))
    with crowd:
        crowd.settle()
        body, _ = message(1)
        path = f"/topics/{contestant.topic}/events"
        request = post_request(server.host, path, body, contestant.publish_headers)
        with Load(server.process) as load:
            rate = publish(crowd, [request] * plan.publishers, plan.seconds)
    return Measurement(
        f"Published by {plan.publishers} publishers",
        contestant.label,
        rate,
        "events/s",
        tally=crowd.tally,
        server_load=load.server,
        client_load=load.client,
        cost=load.per(crowd.tally.received),
    )


def publish(crowd: Crowd, requests: Sequence[bytes], seconds: float) -> float:
    """Closed loops of POSTs for so long, one of each request; the rate of those answered."""
    sockets = [socket.create_connection((crowd.host, crowd.port)) for _ in requests]
    by_fd = {sock.fileno(): sock for sock in sockets}
    request_of = dict(zip(by_fd, requests, strict=True))
    answers = {fd: AnswerParser() for fd in by_fd}
    for fd in by_fd:
        by_fd[fd].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        crowd.epoll.register(fd, select.EPOLLIN)
    started = now = time.perf_counter()
    answered = received = 0
    sent = len(sockets)
    for fd, sock in by_fd.items():
        sock.sendall(request_of[fd])
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
                    by_fd[fd].sendall(request_of[fd])
                    sent += 1
    crowd.tally.expected += answered
    crowd.tally.received += received
    crowd.tally.strange += sent - answered
    for fd, sock in by_fd.items():
        crowd.epoll.unregister(fd)
        sock.close()
    return answered / (last - started)


def by_websocket(server: Server, plan: Plan, name: str, extra: dict[str, bool]) -> Measurement:
    """Events per second that came back to their publishers, acknowledged where that is offered."""
    contestant = server.contestant
    with dial(server, plan.publishers) as crowd:
        crowd.settle()
        time.sleep(plan.start)  # the first seconds are not what a server does all day
        with Load(server.process) as load:
            rate = converse(crowd, plan.seconds, extra, contestant.acknowledges)
    return Measurement(
        f"Published over {plan.publishers} WebSockets",
        f"{contestant.label} ({name})",
        rate,
        "events/s",
        tally=crowd.tally,
        server_load=load.server,
        client_load=load.client,
        cost=load.per(crowd.tally.received),
    )


def dial(server: Server, publishers: int) -> Crowd:
    """A WebSocket on a topic of its own for each publisher."""
    contestant, crowd = server.contestant, Crowd(server.process.port, WebSocketParser)
    usual = contestant.variants[0]
    topic = contestant.topic if usual == NO_AUTH else contestant.room
    for number, line in enumerate(contestant.headers(usual, publishers)):
        crowd.open([websocket_request(server.host, f"/ws/topics/{topic}{number}", line)])
    return crowd


def converse(crowd: Crowd, seconds: float, extra: dict[str, bool], acknowledged: bool) -> float:
    """Each sends when its last event and the answer have come; the rate of the events."""
    numbers = count(1)
    waiting: dict[int, tuple[bytes, int]] = {}  # the marker, and what is still to come
    rest = 2 if acknowledged else 1

    def send(fd: int) -> None:
        body, marker = message(next(numbers))
        content = {"type": "publish", "data": json.loads(body), **extra}
        frame = text_frame(json.dumps(content).encode())
        waiting[fd] = marker, rest
        crowd.tally.expected += 1
        crowd.sockets[fd].sendall(frame)

    started = now = time.perf_counter()
    for fd in crowd.sockets:
        send(fd)
    while waiting and (events := crowd.epoll.poll(STALL_SECONDS, EVENTS)):
        now = time.perf_counter()
        for fd, _ in events:
            for text in crowd.messages(fd, os.read(fd, READ)):
                marker, left = waiting.get(fd, (b"\0", 0))
                if marker in text:
                    crowd.tally.received += 1
                elif MARK in text or not left or PUBLISHED not in text:
                    crowd.tally.strange += 1
                    continue
                if left > 1:
                    waiting[fd] = marker, left - 1
                    continue
                del waiting[fd]
                if now - started < seconds:
                    send(fd)
    return crowd.tally.received / (now - started)
