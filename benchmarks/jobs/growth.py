"""What the worker grows by for one very large body: a file, an archive of files, a table.

Stock Channels is left out, whatever it offers: Django's FileResponse under ASGI takes the whole
file into memory, and Daphne all that its client has not read yet.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..contestants import TOKEN, Contestant, Server
from ..download import MIB, Count, read_all
from ..load import Tally
from ..machine import ServerProcess
from ..plan import Measurement, Plan
from ..wire import get_request
from . import ndjson

NAME: Final = "growth.bin"
ARCHIVE: Final = "/export/files.zip"
END: Final = b"PK\x05\x06"  # begins an archive's last bytes
END_BYTES: Final = 22


class Archive(Count):
    """Counts a ZIP of one file that is stored as it is, and keeps its end."""

    def __init__(self) -> None:
        super().__init__()
        self._tail = b""

    def feed(self, data: bytes) -> None:
        super().feed(data)
        self._tail = (self._tail + data)[-END_BYTES:]

    def tally(self, mib: int, *, ended: bool) -> Tally:
        whole = min(self.bytes // MIB, mib if ended else mib - 1)
        return Tally(mib, whole, strange=int(not self._tail.startswith(END)))


def run(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """One after the other, each after a small one of its kind."""
    if not contestant.is_large:
        return
    token = next(contestant.headers(TOKEN, 1))
    file = Path(contestant.env["FILES_DIR"]).parent / "growth" / NAME
    file.parent.mkdir(exist_ok=True)
    with contestant.serving(plan.server_core, env={"FILES_DIR": str(file.parent)}) as server:
        for title, path, gib, kind in (
            (f"a file of {plan.growth_gib:g} GiB", f"/download/{NAME}", plan.growth_gib, Count),
            (f"a ZIP of {plan.archive_gib:g} GiB", ARCHIVE, plan.archive_gib, Archive),
        ):
            resize(file, 1)
            if not server.offers(path, token):
                continue
            fetch(server, path, token, kind(), 1)
            mib = int(gib * 1_024)
            resize(file, mib)
            before = server.process.forget_peak()
            tally = fetch(server, path, token, kind(), mib)
            yield measured(contestant, title, server.process, before, tally)
        ndjson.read(server, 1, ndjson.WARM_UP)
        before = server.process.forget_peak()
        tally, _ = ndjson.read(server, 1, plan.growth_rows)
        title = f"NDJSON of {plan.growth_rows:,} rows"
        yield measured(contestant, title, server.process, before, tally)
    file.unlink()


def measured(
    contestant: Contestant, title: str, process: ServerProcess, before: int, tally: Tally
) -> Measurement:
    """The growth in MiB."""
    growth = (process.peak_memory() - before) / MIB
    metric = f"Memory growth for {title}"
    return Measurement(metric, contestant.label, growth, "MiB", "less", tally=tally)


def resize(file: Path, mib: int) -> None:
    """A hole of that size: it takes no room on the disk."""
    with file.open("ab") as opened:
        opened.truncate(mib * MIB)


def fetch(server: Server, path: str, headers: bytes, count: Count, mib: int) -> Tally:
    """Read a body to its end."""
    request = get_request(server.host, path, headers)
    (parser,), _ = read_all(server.process.port, request, [count.feed])
    return count.tally(mib, ended=parser.ended)
