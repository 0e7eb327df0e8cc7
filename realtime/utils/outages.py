"""What a client is told while the database can't be asked."""

import logging
from typing import Final

from django.db import InterfaceError, OperationalError

from ..exceptions import DatabaseUnavailable, RealtimeError

logger = logging.getLogger("realtime.database")

UNAVAILABLE: Final = (
    "The database can't be asked, and clients are told to come back: see that it runs, that "
    "DATABASES names it, that `manage.py migrate` has made its tables, and that it takes as many "
    "connections as the processes need. It said: %s"
)
ANSWERED_ERRORS: Final = (RealtimeError, InterfaceError, OperationalError)


def answer_to(error: Exception) -> RealtimeError:
    """Return what one of `ANSWERED_ERRORS` is to a client; log what the database has said."""
    if isinstance(error, RealtimeError):
        return error
    logger.warning(UNAVAILABLE, str(error).strip())
    return DatabaseUnavailable()
