"""Connection storms: WebSockets opened per second, each in another user's name."""

import time
from collections.abc import Iterator

from ..broadcasts import Broadcaster
from ..contestants import NO_AUTH, Contestant, Server
from ..machine import Load
from ..plan import Measurement, Plan


def run(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """Users who come for the first time; then all are cut off, and come back at once."""
    for variant in contestant.variants:
        with contestant.serving(plan.server_core) as server:
            yield _storm(server, variant, plan, f"{plan.storm:,} WebSockets opened")
            time.sleep(plan.rest)
            yield _storm(server, variant, plan, f"{plan.storm:,} WebSockets opened again")


def _storm(server: Server, variant: str, plan: Plan, metric: str) -> Measurement:
    """Open them, then prove by a broadcast that each is alive."""
    contestant = server.contestant
    topic = contestant.topic if variant == NO_AUTH else contestant.room
    headers = contestant.headers(variant, plan.storm)
    with Load(server.process) as load:
        crowd, seconds = server.websockets(f"/ws/topics/{topic}", headers)
    path = f"/topics/{topic}/events"
    with crowd, Broadcaster(crowd, path, contestant.publish_headers) as broadcaster:
        crowd.settle()
        broadcaster.once()
    return Measurement(
        metric,
        f"{contestant.label} ({variant})",
        plan.storm / seconds,
        "connections/s",
        tally=crowd.tally,
        server_load=load.server,
        client_load=load.client,
        cost=load.per(plan.storm),
    )
