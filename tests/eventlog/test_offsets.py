"""`realtime.eventlog.offsets`: what is taken of a topic counts on, and is locked until the end."""

import pytest
from django.db import connection, transaction

from realtime import models
from realtime.eventlog.offsets import next_offsets

pytestmark = pytest.mark.django_db(transaction=True)


def test_offsets_are_taken_of_a_topic_that_is_made_if_there_is_none():
    with transaction.atomic(), connection.cursor() as cursor:
        first = next_offsets(cursor, "a", 3)
        second = next_offsets(cursor, "a", 1)
    topic = models.Topic.objects.get()
    assert first == (topic.pk, topic.epoch, 3)
    assert second == (topic.pk, topic.epoch, 4)
    assert (topic.name, topic.head) == ("a", 4)


def test_a_rollback_gives_them_back():
    models.Topic.objects.create(name="a", head=7)
    with transaction.atomic(), connection.cursor() as cursor:
        assert next_offsets(cursor, "a", 2)[2] == 9
        transaction.set_rollback(True)
    assert models.Topic.objects.get().head == 7
