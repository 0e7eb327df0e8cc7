"""`realtime.delivery.relay`: what a log finds in its outbox is announced."""

from collections.abc import AsyncIterator

import pytest
from django.test import override_settings

from realtime.delivery.subscription import Subscription
from realtime.eventlog.base import NewEvent
from realtime.eventlog.memory import MemoryLog
from realtime.events.event import Event
from realtime.exceptions import DatabaseUnavailable

pytestmark = pytest.mark.django_db(transaction=True)


class LogWithOutbox(MemoryLog):
    """Nothing is found in it by a look at the heads."""

    calls = 0

    async def heads(self, topics):
        return {}

    async def move_outbox(self) -> AsyncIterator[list[Event]]:
        type(self).calls += 1
        if self.calls == 1:
            raise DatabaseUnavailable
        for _ in range(2):
            yield self.append([NewEvent("a", "message", str(self.calls))])


async def test_what_is_left_in_an_outbox_reaches_readers_once_it_can_be_stored(caplog):
    settings = {"EVENT_LOG": f"{__name__}.LogWithOutbox", "HEAD_CHECK_SECONDS": 0.05}
    with override_settings(REALTIME={**settings, "PRUNE_INTERVAL_SECONDS": None}):
        async with Subscription() as subscription:
            await subscription.add("a")
            events: list[Event] = []
            while len(events) < 2:
                events += await subscription.read(10)
    assert [event.data for event in events[:2]] == ["2", "2"]
    assert "Error calling" not in caplog.text


async def test_most_logs_have_none():
    assert [events async for events in MemoryLog().move_outbox()] == []
