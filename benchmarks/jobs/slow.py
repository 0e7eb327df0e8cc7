"""A client that stops reading: what the worker grows by while it waits."""

import time
from collections.abc import Iterator

from ..contestants import STAFF, Contestant
from ..download import MIB, Count, connect, discard, read_all
from ..machine import Trace
from ..plan import Measurement, Plan
from ..wire import BodyParser, get_request

FIRST = 1_024  # bytes read before the pause


def run(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """Read a little, pause, then read the rest, all of which has to come."""
    headers = next(contestant.headers(STAFF, 1))
    parser, count = BodyParser(), Count()
    with contestant.serving(plan.server_core) as server:
        if not server.offers("/firehose?mb=1", headers):
            return
        port = server.process.port
        warm_up = get_request(server.host, "/firehose?mb=1", headers)
        read_all(port, warm_up, [lambda data: None])
        before = server.process.forget_peak()
        with connect(port) as sock, Trace(server.process) as trace:
            path = f"/firehose?mb={plan.firehose_mib}"
            sock.sendall(get_request(server.host, path, headers))
            count.feed(parser.feed(sock.recv(FIRST)))
            time.sleep(plan.pause)
            growth = server.process.peak_memory() - before
            discard(sock, parser, count)
    yield Measurement(
        f"Memory growth, a client stops reading {plan.firehose_mib:,} MiB",
        contestant.label,
        growth / MIB,
        "MiB",
        "less",
        tally=count.tally(plan.firehose_mib, ended=parser.ended),
        series=trace.points,
    )
