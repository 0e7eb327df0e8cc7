"""`realtime.llm.store`: what is kept of answers, and where it is read."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import override_settings
from django.utils import timezone

from realtime.llm import store
from realtime.llm.models import Generation

from ..support.databases import ReplicaForReads

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def alice() -> User:
    return User.objects.create_user("alice")


@override_settings(DATABASE_ROUTERS=[ReplicaForReads()])
def test_answers_are_read_where_they_are_written(alice):
    row, is_new = store.create(alice, "key", "digest", "model")
    assert is_new
    assert store.create(alice, "key", "digest", "model") == (row, False)
    assert store.find(alice, "key", "digest") == row
    assert len(store.append(row, ["text"])) == 1
    assert store.note_listeners([row.topic]) == []
    is_allowed, last = store.cancel(row.name, alice)
    assert (is_allowed, last.type) == (True, "done")
    Generation.objects.update(ended=timezone.now() - timedelta(days=1000))
    assert store.sweep() == []
    assert not store.primary_rows(Generation).exists()
