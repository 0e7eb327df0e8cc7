"""The jobs, one per module, by the name that `--jobs` takes."""

from typing import Final

from ..plan import Job
from . import connect, echo, fanout, memory, publish, stall

JOBS: Final[dict[str, Job]] = {
    "websocket": fanout.websocket,
    "sse": fanout.sse,
    "echo": echo.run,
    "connect": connect.run,
    "publish": publish.run,
    "memory": memory.run,
    "stall": stall.run,
}
