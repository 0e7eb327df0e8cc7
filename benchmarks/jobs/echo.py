"""Echo: each socket sends, waits for the answer, sends again."""

import os
import time
from collections.abc import Iterator

from ..contestants import Contestant
from ..load import EVENTS, READ, STALL_SECONDS, Crowd, message
from ..machine import Load
from ..plan import Measurement, Plan
from ..wire import text_frame

NUMBER = 1  # every message is the same, so that every answer is


def run(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """Round trips per second over a few sockets."""
    with contestant.serving(plan.server_core) as server:
        crowd, _ = server.websockets("/ws/echo", contestant.headers("", plan.echoers))
        with crowd:
            crowd.settle()
            rounds(crowd, plan.seconds / 4)
            before = crowd.tally.received
            with Load(server.process) as load:
                rate = rounds(crowd, plan.seconds)
            yield Measurement(
                f"Echo over {plan.echoers} sockets",
                contestant.label,
                rate,
                "round trips/s",
                tally=crowd.tally,
                server_load=load.server,
                client_load=load.client,
                cost=load.per(crowd.tally.received - before),
            )


def rounds(crowd: Crowd, seconds: float) -> float:
    """Round trips per second for so long; every message sent is waited for."""
    payload, marker = message(NUMBER)
    frame = text_frame(payload)
    sends = {fd: sock.send for fd, sock in crowd.sockets.items()}
    poll, read, size = crowd.epoll.poll, os.read, len(frame)
    got, sent, model = 0, len(sends), b"\0"
    started = now = time.perf_counter()
    deadline = started + seconds
    for send in sends.values():
        send(frame)
    while got < sent:
        events = poll(STALL_SECONDS, EVENTS)
        if not events:
            break
        now = time.perf_counter()
        for fd, _ in events:
            data = read(fd, READ)
            if data != model:
                copies = crowd.parse(fd, data, marker)
                if not copies:
                    continue
                if copies == 1 and not crowd.parsers[fd].partial:
                    model = data
            got += 1
            if now < deadline:
                if sends[fd](frame) != size:
                    raise BufferError("The server does not read.")
                sent += 1
    crowd.tally.expected += sent
    crowd.tally.received += got
    return got / (now - started)
