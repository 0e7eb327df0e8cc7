"""Event streams opened per second with an access token, each in another user's name."""

from collections.abc import Iterator

from ..broadcasts import Broadcaster
from ..contestants import TOKEN, Contestant
from ..machine import Load
from ..plan import Measurement, Plan


def run(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """To a fresh server each time, and so of users that it has never seen."""
    if TOKEN not in contestant.variants:
        return
    path = f"/topics/{contestant.room}/events"
    for size in plan.opens:
        with contestant.serving(plan.server_core) as server:
            with Load(server.process) as load:
                crowd, seconds = server.streams(path, contestant.headers(TOKEN, size))
            # That each is alive is proven by a broadcast.
            with crowd, Broadcaster(crowd, path, contestant.publish_headers) as broadcaster:
                crowd.settle()
                broadcaster.once()
            yield Measurement(
                f"{size:,} event streams opened",
                f"{contestant.label} ({TOKEN})",
                size / seconds,
                "connections/s",
                tally=crowd.tally,
                server_load=load.server,
                client_load=load.client,
                cost=load.per(size),
            )
