"""What an application wants done in a serving process before it counts as ready.

An app appends to `CALLBACKS` while it is loaded; the server calls them in the thread of its event
loop, which does not run yet. A supervisor waits for it: a worker that is being replaced answers
meanwhile.
"""

import logging
from collections.abc import Callable
from typing import Final

logger = logging.getLogger("realtime.server")

CALLBACKS: Final[list[Callable[[], None]]] = []


def run() -> None:
    """Call them; one that fails is logged, and keeps neither the others nor the server."""
    for callback in CALLBACKS:
        try:
            callback()
        except Exception:
            logger.exception("A callback failed at the start of the server")
