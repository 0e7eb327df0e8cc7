"""What a client is told while the database can't be asked."""

import logging
from typing import Final

from django.db import InterfaceError, OperationalError

from ..exceptions import DatabaseUnavailable, RealtimeError

logger = logging.getLogger("realtime.database")

ANSWERED_ERRORS: Final = (RealtimeError, InterfaceError, OperationalError)


def answer_to(error: Exception) -> RealtimeError:
    """Return what one of `ANSWERED_ERRORS` is to a client; log what the database has said."""
    if isinstance(error, RealtimeError):
        return error
    logger.warning("The database can't be asked: %s", error)
    return DatabaseUnavailable()
