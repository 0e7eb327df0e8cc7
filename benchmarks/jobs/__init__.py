"""The jobs, one per module, by the name that `--jobs` takes."""

from typing import Final

from ..plan import Job
from . import (
    chat,
    connect,
    echo,
    fanout,
    file,
    growth,
    lagging,
    memory,
    ndjson,
    opens,
    publish,
    slow,
    stall,
    workers,
)

JOBS: Final[dict[str, Job]] = {
    "websocket": fanout.websocket,
    "sse": fanout.sse,
    "lagging": lagging.run,
    "echo": echo.run,
    "connect": connect.run,
    "opens": opens.run,
    "publish": publish.run,
    "workers": workers.run,
    "memory": memory.run,
    "stall": stall.run,
    "ndjson": ndjson.run,
    "file": file.run,
    "slow": slow.run,
    "token": chat.run,
    "growth": growth.run,
}
ONCE: Final = frozenset({"growth"})  # takes long, and comes out the same each time
