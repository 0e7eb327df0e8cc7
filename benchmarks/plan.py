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
    seconds: float = 3.0
    echoers: int = 50
    storm: int = 2_000
    idle: int = 2_000
    stall: int = 10_000
    publishers: int = 8
    rows: int = 200_000
    readers: int = 8
    file_mib: int = 1_024
    firehose_mib: int = 1_000
    pause: float = 3.0  # of the slow reader
    prompts: int = 50
    server_core: int = 0

    @property
    def users(self) -> int:
        """As many as there are connections that need one."""
        return max(self.storm, self.idle)


SHORT = Plan(
    sizes=(1_000,),
    seconds=0.8,
    storm=300,
    idle=300,
    stall=1_000,
    rows=40_000,
    file_mib=256,
    firehose_mib=200,
    pause=1.0,
    prompts=20,
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
    server_load: float | None = None  # share of its core
    client_load: float | None = None

    @property
    def per_core(self) -> float | None:
        """What a second of the server's processor time yields: the waits and whatever else the
        machine is doing left out."""
        return self.value / self.server_load if self.server_load else None


Job = Callable[[Contestant, Plan], Iterator[Measurement]]
