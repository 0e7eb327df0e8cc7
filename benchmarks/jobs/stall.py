"""The longest time the event loop was not free during broadcasts to many sockets.

Measured inside the server: a timer of 1 ms around the application (see `probed.py`) notes the
longest gap between two of its runs.
"""

import json
import socket
from collections.abc import Iterator

from ..broadcasts import Broadcaster
from ..contestants import Contestant
from ..plan import Measurement, Plan
from ..wire import AnswerParser


def run(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """Connect many, settle, then look only at the broadcasts."""
    with contestant.serving(plan.server_core, probed=True) as server:
        path = f"/ws/topics/{contestant.topic}"
        crowd, _ = server.websockets(path, contestant.headers("", plan.stall))
        path = f"/topics/{contestant.topic}/events"
        with crowd, Broadcaster(crowd, path, contestant.publish_headers) as broadcaster:
            crowd.settle()
            broadcaster.once()
            gaps: list[float] = []
            longest_gap(server.process.port)
            for _ in range(5):
                broadcaster.once()
                gaps.append(longest_gap(server.process.port))
        yield Measurement(
            f"Longest stall of the loop, broadcast to {plan.stall:,}",
            contestant.label,
            max(gaps) * 1_000,
            "ms",
            "less",
            tally=crowd.tally,
        )


def longest_gap(port: int) -> float:
    """The probe's longest gap in seconds since it was last asked."""
    answer = AnswerParser()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(30)
        sock.sendall(b"GET /longest-gap HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        while not answer.feed(sock.recv(4_096)):
            pass
    return float(json.loads(answer.body))
