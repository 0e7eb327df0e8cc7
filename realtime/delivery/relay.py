"""The relay of an outbox: what committed transactions have left behind is stored and announced."""

from contextlib import suppress
from typing import Any

from ..eventlog import get_event_log
from ..exceptions import DatabaseUnavailable
from .announce import announce


async def relay_outbox(**kwargs: Any) -> None:
    """Have the log store what is left in its outbox, and announce it.

    A receiver of `heads_checked`.
    """
    with suppress(DatabaseUnavailable):  # which is logged already
        async for events in get_event_log().move_outbox():
            await announce(events)
