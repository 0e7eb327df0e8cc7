"""A table as NDJSON: rows per second for one client and for some at once, and the memory."""

from collections.abc import Iterator

from ..contestants import Contestant, Server
from ..download import MIB, Lines, read_all
from ..load import Tally
from ..machine import Load
from ..plan import Measurement, Plan
from ..wire import get_request

PATH = "/stream/items"
KEYS = ("id", "name", "price", "created", "uuid")
WARM_UP = 2_000  # rows


def run(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """One client reads the whole table; of some at once, each reads a quarter of it."""
    for readers, rows in ((1, plan.rows), (plan.readers, plan.rows // 4)):
        with contestant.serving(plan.server_core) as server:
            if not server.offers(f"{PATH}?limit=1"):
                return
            read(server, readers, min(rows, WARM_UP))
            before = server.process.forget_peak()
            with Load(server.process) as load:
                tally, seconds = read(server, readers, rows)
            growth = server.process.peak_memory() - before
        clients = "1 client" if readers == 1 else f"{readers} clients"
        yield Measurement(
            f"NDJSON of {rows:,} rows, {clients}",
            contestant.label,
            tally.received / seconds,
            "rows/s",
            tally=tally,
            server_load=load.server,
            client_load=load.client,
            cost=load.per(tally.received),
        )
        metric = f"Memory growth for NDJSON, {clients}"
        yield Measurement(metric, contestant.label, growth / MIB, "MiB", "less")


def read(server: Server, readers: int, rows: int) -> tuple[Tally, float]:
    """So many rows for each reader, counted; the seconds it took."""
    counts = [Lines() for _ in range(readers)]
    request = get_request(server.host, f"{PATH}?limit={rows}")
    parsers, seconds = read_all(server.process.port, request, [count.feed for count in counts])
    tally = Tally()
    for parser, count in zip(parsers, counts, strict=True):
        tally.add(count.tally(rows, KEYS, ended=parser.ended))
    return tally, seconds
