"""Whether a test has opened a transaction."""

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction

from realtime.utils.transactions import is_in_transaction

pytestmark = pytest.mark.django_db(transaction=True)


def test_one_of_the_thread_that_waits_is_seen() -> None:
    assert not async_to_sync(is_in_transaction)()
    with transaction.atomic():
        assert async_to_sync(is_in_transaction)()
    assert not async_to_sync(is_in_transaction)()
