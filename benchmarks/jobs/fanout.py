"""Fan-out: an HTTP POST publishes one message, and the next goes out when all have it."""

import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

from ..broadcasts import Broadcaster, Broadcasts
from ..contestants import Contestant, Server
from ..load import Crowd
from ..machine import Load
from ..plan import Measurement, Plan

Dial: TypeAlias = Callable[[Server, str, Iterator[bytes]], tuple[Crowd, float]]


def websocket(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """To WebSockets."""
    path = f"/ws/topics/{contestant.topic}"
    return _to_each_size(contestant, plan, "WebSocket", Server.websockets, path)


def sse(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """To server-sent event streams."""
    path = f"/topics/{contestant.topic}/events"
    return _to_each_size(contestant, plan, "SSE", Server.streams, path)


def _to_each_size(
    contestant: Contestant, plan: Plan, kind: str, dial: Dial, path: str
) -> Iterator[Measurement]:
    with contestant.serving(plan.server_core) as server:
        for number, size in enumerate(plan.sizes):
            if number:
                time.sleep(plan.rest)
            crowd, _ = dial(server, path, contestant.headers("", size))
            yield from _measure(server, crowd, plan, kind)
            if size == plan.busy:
                crowd, _ = dial(server, path, contestant.headers("", size))
                yield _measure_together(server, crowd, plan, kind)


def _measure(server: Server, crowd: Crowd, plan: Plan, kind: str) -> Iterator[Measurement]:
    contestant = server.contestant
    path, headers = f"/topics/{contestant.topic}/events", contestant.publish_headers
    with crowd, Broadcaster(crowd, path, headers) as broadcaster:
        crowd.settle()
        with Load(server.process) as load:
            result = broadcaster.run(plan.seconds)
        yield deliveries(f"{kind} fan-out to {len(crowd):,}", server, result, load)
        for percent in (50, 99):
            yield Measurement(
                f"{kind} broadcast to {len(crowd):,}, p{percent}",
                contestant.label,
                result.percentile(percent) * 1_000,
                "ms",
                "less",
            )


def _measure_together(server: Server, crowd: Crowd, plan: Plan, kind: str) -> Measurement:
    """Several POSTs under way at once, as on a busy site: what has come while a broadcast was on
    its way may go out with the next."""
    contestant = server.contestant
    path, headers = f"/topics/{contestant.topic}/events", contestant.publish_headers
    with crowd, Broadcaster(crowd, path, headers) as broadcaster:
        crowd.settle()
        with Load(server.process) as load:
            result = broadcaster.run_together(plan.publishers, plan.seconds)
    metric = f"{kind} fan-out to {len(crowd):,}, {plan.publishers} publishers"
    return deliveries(metric, server, result, load)


def deliveries(metric: str, server: Server, result: Broadcasts, load: Load) -> Measurement:
    """What came to all the sockets, per second."""
    return Measurement(
        metric,
        server.contestant.label,
        result.rate,
        "deliveries/s",
        tally=result.tally,
        server_load=load.server,
        client_load=load.client,
        cost=load.per(result.published * result.sockets),
    )
