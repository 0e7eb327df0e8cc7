"""The status of a process, which it writes to its row with each beat."""

from dataclasses import asdict, dataclass
from typing import Any, Final

from ..utils.aio import PerLoop


@dataclass
class ProcessStatus:
    """The columns of the row, set where the things they tell of change."""

    connections: int = 0  # live sockets and streams
    loop_lag: float = 0.0  # seconds by which the event loop was late, when last looked at
    bus_failure: str = ""  # why the bus does not work; empty where it does

    def columns(self) -> dict[str, Any]:
        """Return the values by the names of the columns."""
        return asdict(self)


def get_status() -> ProcessStatus:
    """Return the status of the running event loop; a server process has one."""
    return _statuses.get()


_statuses: Final = PerLoop(ProcessStatus)
