"""How large the jobs are, and what they hand back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from .contestants import Contestant
from .load import Tally


@dataclass(frozen=True)
class Plan:
    """Sizes in connections, times in seconds."""

    sizes: tuple[int, ...] = (100, 1_000, 5_000)
    seconds: float = 2.5
    echoers: int = 50
    storm: int = 2_000
    opens: tuple[int, ...] = (1_000, 5_000)  # event streams, to a fresh server each
    rest: float = 1.5  # in which a server may clear away those who have left
    start: float = 2.5  # in which one with readers finds out whether it is alone: two beats
    idle: int = 2_000
    stall: int = 10_000
    publishers: int = 8
    workers: tuple[int, ...] = (1, 2, 4)
    shared: int = 1_000  # sockets that those workers have together
    rows: int = 200_000
    readers: int = 8
    file_mib: int = 1_024
    firehose_mib: int = 1_000
    missed: int = 300  # events that go by sockets that are full
    pause: float = 3.0  # of the slow reader
    prompts: int = 50
    is_sdk_measured: bool = True  # beside the first token of ours
    quiet: float = 1.0  # before memory is read
    growth_gib: float = 10.0  # of one file
    growth_rows: int = 1_000_000
    archive_gib: float = 5.0
    server_core: int = 0
    cores: frozenset[int] = frozenset()  # all of them, for the job with several workers

    @property
    def busy(self) -> int:
        """The connections of the fan-out by several publishers."""
        return self.sizes[min(1, len(self.sizes) - 1)]

    @property
    def users(self) -> int:
        """As many as there are connections that need one."""
        return max(self.storm, self.idle, *self.opens)


SHORT = Plan(
    sizes=(100, 500),
    seconds=0.3,
    workers=(1, 2),
    storm=100,
    opens=(100, 300),
    rest=0.5,
    start=0.0,
    idle=200,
    stall=300,
    shared=200,
    rows=20_000,
    file_mib=128,
    firehose_mib=200,
    missed=60,
    pause=1.0,
    prompts=10,
    quiet=0.2,
    growth_gib=0.5,
    growth_rows=50_000,
    archive_gib=0.25,
)


@dataclass
class Measurement:
    """One figure of one run."""

    metric: str
    contestant: str  # its label, with the credentials where a job tries several
    value: float
    unit: str
    better: Literal["more", "less"] = "more"
    tally: Tally = field(default_factory=Tally)
    server_load: float | None = None  # share of a core
    client_load: float | None = None
    cost: float | None = None  # seconds of the server's processor time per operation
    job: str = ""
    turn: int = 0  # which of the repeats; ratios are taken within one
    series: list[tuple[float, float]] = field(default_factory=list)  # seconds, value

    @property
    def per_core(self) -> float | None:
        """What a second of the server's processor time yields: the waits and whatever else the
        machine is doing left out."""
        return self.value / self.server_load if self.server_load else None


Job = Callable[[Contestant, Plan], Iterator[Measurement]]
