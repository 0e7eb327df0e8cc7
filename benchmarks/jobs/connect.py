"""A connection storm: WebSockets opened per second, each in another user's name."""

from collections.abc import Iterator

from ..broadcasts import Broadcaster
from ..contestants import NO_AUTH, Contestant
from ..machine import Load
from ..plan import Measurement, Plan


def run(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """Open them, then prove by a broadcast that each is alive."""
    for variant in contestant.variants:
        topic = contestant.topic if variant == NO_AUTH else contestant.room
        with contestant.serving(plan.server_core) as server:
            headers = contestant.headers(variant, plan.storm)
            with Load(server.process) as load:
                crowd, seconds = server.websockets(f"/ws/topics/{topic}", headers)
            path = f"/topics/{topic}/events"
            with crowd, Broadcaster(crowd, path, contestant.publish_headers) as broadcaster:
                crowd.settle()
                broadcaster.once()
            yield Measurement(
                f"{plan.storm:,} WebSockets opened",
                f"{contestant.label} ({variant})",
                plan.storm / seconds,
                "connections/s",
                tally=crowd.tally,
                server_load=load.server,
                client_load=load.client,
            )
