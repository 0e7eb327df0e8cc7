"""`manage.py prune_events`."""

from io import StringIO

import pytest
from django.core.management import call_command
from django.test import override_settings

from realtime.delivery.publish import publish
from realtime.models import Event

pytestmark = pytest.mark.django_db(transaction=True)


def prune() -> list[str]:
    out = StringIO()
    call_command("prune_events", stdout=out)
    return out.getvalue().splitlines()


def test_it_prints_what_went():
    for topic, count in (("a", 5), ("b", 2), ("c", 3)):
        for n in range(count):
            publish(topic, n)
    with override_settings(REALTIME={"RETENTION_EVENTS": 2}):
        assert prune() == ["a: 3", "c: 1", "4 events dropped from 2 topics."]
        assert prune() == ["0 events dropped from 0 topics."]
    assert Event.objects.count() == 6


def test_nothing_to_prune():
    assert prune() == ["0 events dropped from 0 topics."]
