"""`realtime.llm.store`: what is kept of answers, and where it is read."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import override_settings
from django.utils import timezone

from realtime.exceptions import KeyReused
from realtime.llm import store
from realtime.llm.models import Generation
from realtime.models import Topic

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


def test_key_that_came_with_another_prompt(alice):
    store.create(alice, "key", "digest", "model")
    with pytest.raises(KeyReused, match="'key' came with another prompt"):
        store.find(alice, "key", "other")


def test_answers_are_kept_as_long_as_their_topics(alice, monkeypatch):
    """Those that are kept, which stand first, keep the others from nothing."""
    monkeypatch.setattr(store, "SWEEP_BATCH", 1)
    bob = User.objects.create_user("bob")
    rows = [store.create(user, None, "digest", "model")[0] for user in (alice, alice, bob)]
    for row in rows:
        store.append(row, ["text"])
    Generation.objects.update(ended=timezone.now() - timedelta(days=8))
    pattern, day = f"user.{alice.pk}.*", 86_400

    def kept(seconds: int | None, of_alice: int | None) -> list[str]:
        topics = {"USER.*": {"RETENTION_SECONDS": day}, pattern: {"RETENTION_SECONDS": of_alice}}
        with override_settings(REALTIME={"RETENTION_SECONDS": seconds, "TOPICS": topics}):
            for _ in range(3):
                store.sweep()
        left = set(Generation.objects.values_list("topic", flat=True))
        assert set(Topic.objects.values_list("name", flat=True)) == left
        return sorted(row.user.username for row in rows if row.topic in left)

    assert kept(None, None) == ["alice", "alice", "bob"]
    assert kept(None, 9 * day) == ["alice", "alice", "bob"]
    assert kept(7 * day, None) == ["alice", "alice"]
    assert kept(None, 7 * day) == []
