from collections.abc import Iterator

import pytest
from django.db import connection

from realtime.utils.threads import DATABASE, TRANSFER

from ..support.databases import ON_POSTGRESQL


@pytest.fixture(autouse=True)
def _no_dropped_connection_left() -> Iterator[None]:
    """What these tests break, whichever thread or pool it is in, is broken for them alone."""
    yield
    if ON_POSTGRESQL:
        DATABASE.close()
        TRANSFER.close()
        if connection.pool is not None:
            connection.close_pool()
