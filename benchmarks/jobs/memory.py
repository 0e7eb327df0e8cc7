"""Memory per idle connection: what the worker grew by, divided."""

import time
from collections.abc import Iterator

from ..broadcasts import Broadcaster
from ..contestants import Contestant, Server
from ..load import Crowd
from ..plan import Measurement, Plan

WARM_UP = 20  # connections opened and used first, for what is loaded once


def run(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """WebSockets and streams, in the name of many users where the contestant knows users."""
    variant = contestant.variants[0]
    topic = contestant.room
    for kind, path in (("WebSocket", f"/ws/topics/{topic}"), ("SSE", f"/topics/{topic}/events")):
        with contestant.serving(plan.server_core) as server:
            dial = server.websockets if kind == "WebSocket" else server.streams
            warm, _ = dial(path, contestant.headers(variant, WARM_UP))
            with warm:
                _prove(server, warm, topic)
                before = server.process.memory()
                crowd, _ = dial(path, contestant.headers(variant, plan.idle))
                with crowd:
                    crowd.settle()
                    time.sleep(plan.quiet)
                    after = server.process.memory()
                    warm.settle(0.1)
                    _prove(server, crowd, topic)
            yield Measurement(
                f"Memory per idle {kind}",
                contestant.label,
                (after - before) / plan.idle / 1_024,
                "KiB",
                "less",
                tally=crowd.tally,
            )


def _prove(server: Server, crowd: Crowd, topic: str) -> None:
    contestant = server.contestant
    path = f"/topics/{topic}/events"
    with Broadcaster(crowd, path, contestant.publish_headers) as broadcaster:
        crowd.settle()
        broadcaster.once()
