"""Several workers behind one port: a broadcast to all of their sockets, and an echo on each.

All cores serve here, whatever the number of workers, and the client and Valkey have to share one
of them: with fewer cores than workers and a client, more workers can't be faster. Daphne has no
workers; several of it behind a proxy would be another thing than one command.
"""

from collections.abc import Iterator

from ..broadcasts import Broadcaster
from ..contestants import Contestant, Server
from ..machine import Load
from ..plan import Measurement, Plan
from .echo import rounds
from .fanout import deliveries


def run(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """The same by more and more workers."""
    if not contestant.has_workers:
        return
    for workers in plan.workers:
        with contestant.serving(plan.cores, workers=workers) as server:
            yield _fan_out(server, plan, workers)
            yield _echo(server, plan, workers)


def by(workers: int) -> str:
    """The end of a metric's name."""
    return "by 1 worker" if workers == 1 else f"by {workers} workers"


def _fan_out(server: Server, plan: Plan, workers: int) -> Measurement:
    contestant = server.contestant
    headers = contestant.headers("", plan.shared)
    crowd, _ = server.websockets(f"/ws/topics/{contestant.topic}", headers)
    path = f"/topics/{contestant.topic}/events"
    with crowd, Broadcaster(crowd, path, contestant.publish_headers) as broadcaster:
        crowd.settle()
        with Load(server.process) as load:
            result = broadcaster.run(plan.seconds)
    return deliveries(f"Fan-out to {plan.shared:,} {by(workers)}", server, result, load)


def _echo(server: Server, plan: Plan, workers: int) -> Measurement:
    headers = server.contestant.headers("", plan.shared)
    crowd, _ = server.websockets("/ws/echo", headers)
    with crowd:
        crowd.settle()
        rounds(crowd, plan.seconds / 4)
        with Load(server.process) as load:
            rate = rounds(crowd, plan.seconds)
    return Measurement(
        f"Echo over {plan.shared:,} {by(workers)}",
        server.contestant.label,
        rate,
        "round trips/s",
        tally=crowd.tally,
        server_load=load.server,
        client_load=load.client,
    )
