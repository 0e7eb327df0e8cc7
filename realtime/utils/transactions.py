"""Whether a test has opened a transaction around what it calls."""

from typing import Final

from asgiref.sync import sync_to_async
from django.db import connections

IN_TRANSACTION: Final = (
    "The test is in a transaction, of which the application's threads see nothing: use a "
    "TransactionTestCase, or pytest.mark.django_db(transaction=True)."
)


async def is_in_transaction() -> bool:
    """Return whether this thread, or the one that waits for it, has an open transaction."""
    # A TestCase's is on the connection of this thread, or of that below async_to_sync.
    return _is_in_transaction() or await sync_to_async(_is_in_transaction)()


def _is_in_transaction() -> bool:
    return any(each.in_atomic_block for each in connections.all(initialized_only=True))
