"""Events of one transaction are announced together, by topic and by one connection."""

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from django.db import transaction
from django.test import TestCase, override_settings

from realtime.delivery.publish import publish

from ..support.layers import RecordingLayer, data_sent, layer


@pytest.mark.django_db(transaction=True)
def test_the_events_of_a_transaction_are_announced_together(monkeypatch):
    sent: dict[str, list[list[str]]] = defaultdict(list)
    loops = set()

    async def group_send(self: RecordingLayer, group: str, message: dict[str, Any]) -> None:
        sent[group].append([event["data"] for event in message["events"]])
        loops.add(asyncio.get_running_loop())  # each has a connection of its own

    monkeypatch.setattr(RecordingLayer, "group_send", group_send)
    with layer(RecordingLayer), override_settings(REALTIME={"ANNOUNCE_QUEUE": 20}):
        with transaction.atomic():
            for number in range(150):
                publish("busy", number)
                publish(f"quiet.{number}", number, ephemeral=True)
            assert not sent
        assert len(loops) == 1
        busy = sent.pop("busy")
        assert [int(data) for message in busy for data in message] == list(range(150))
        assert len(busy) == 2  # as much as a message carries
        assert sent == {f"quiet.{number}": [[str(number)]] for number in range(150)}
        publish("busy", "later")
        assert sent["busy"] == [['"later"']]


@pytest.mark.django_db(transaction=True)
def test_what_a_savepoint_takes_back_is_not_announced_with_the_others():
    with layer(RecordingLayer):
        with transaction.atomic():
            for number in range(3):
                with transaction.atomic():
                    publish("a", number, ephemeral=True)
                    transaction.set_rollback(number == 0)
        assert data_sent() == ["1", "2"]
        with transaction.atomic():
            publish("a", 3, ephemeral=True)
            with transaction.atomic():
                publish("a", 4, ephemeral=True)
                transaction.set_rollback(True)
        assert data_sent() == ["1", "2", "3"]


class InATestCase(TestCase):
    def test_only_what_is_committed_is_announced(self) -> None:
        with layer(RecordingLayer):
            publish("a", 1)
            with self.captureOnCommitCallbacks(execute=True):
                publish("a", 2)
                publish("a", 3)
            assert data_sent() == ["2", "3"]
