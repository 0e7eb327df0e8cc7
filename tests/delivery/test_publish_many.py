"""`realtime.delivery.publish_many`: all events of a call are stored and heard, or none."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import SynchronousOnlyOperation
from django.db import transaction

from realtime.delivery.announce import announce
from realtime.delivery.publish import publish
from realtime.delivery.publish_many import apublish_many, publish_many, publish_many_now
from realtime.delivery.subscription import Subscription
from realtime.events.event import Event
from realtime.exceptions import DataTooLarge, InvalidData, InvalidKey, InvalidTopic, KeyReused
from realtime.models import Event as EventRow

pytestmark = pytest.mark.django_db(transaction=True)

WAYS = pytest.mark.parametrize(
    "way", [publish_many, async_to_sync(apublish_many), async_to_sync(publish_many_now)]
)


def stored() -> list[tuple[str, int, str, str]]:
    rows = EventRow.objects.order_by("topic__name", "offset")
    return list(rows.values_list("topic__name", "offset", "type", "data"))


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[list[Event]]:
    """What goes to readers and to the bus, call by call."""
    calls: list[list[Event]] = []

    def note(events: Any, *via: str) -> Any:
        calls.append(list(events))
        return announce(events, *via)

    for module in ("announce", "pending"):
        monkeypatch.setattr(f"realtime.delivery.{module}.announce", note)
    return calls


@WAYS
def test_events_of_several_topics_are_stored_and_announced_together(way, announced):
    events = way(
        [
            {"topic": "b", "data": 1},
            {"topic": "a", "data": {"n": 2}, "type": "said", "meta": {"m": 1}},
            {"topic": "b", "data": 3},
        ]
    )
    assert stored() == [
        ("a", 1, "said", '{"n":2}'),
        ("b", 1, "message", "1"),
        ("b", 2, "message", "3"),
    ]
    assert [(event.topic, event.offset) for event in events] == [("b", 1), ("a", 1), ("b", 2)]
    assert events[1].meta == '{"m":1}'
    assert announced == [events]


@WAYS
@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"topic": "a b", "data": 1}, InvalidTopic),
        ({"topic": "a", "data": object()}, InvalidData),
        ({"topic": "a", "data": "x" * 70_000}, DataTooLarge),
        ({"topic": "a", "data": 1, "key": ""}, InvalidKey),
        ({"topic": "a"}, InvalidData),
        ({"topic": "a", "data": 1, "ephemeral": True}, InvalidData),
    ],
)
def test_with_a_wrong_one_none_is_stored(way, wrong, error, announced):
    with pytest.raises(error, match=r"^Event 2: "):
        way([{"topic": "a", "data": 1}, wrong])
    assert stored() == []
    assert announced == []


@WAYS
def test_those_that_came_before_have_their_first_ids_in_their_places(way, announced):
    first = publish("a", 1, key="k")
    announced.clear()
    events = way([{"topic": "a", "data": 2}, {"topic": "a", "data": 1, "key": "k"}])
    assert [event.is_repeated for event in events] == [False, True]
    assert events[1].id == first.id
    assert announced == [events[:1]]
    with pytest.raises(KeyReused, match="'k'"):
        way([{"topic": "b", "data": 2}, {"topic": "a", "data": 2, "key": "k"}])
    assert stored() == [("a", 1, "message", "1"), ("a", 2, "message", "2")]


async def test_the_sync_twin_is_refused_in_an_event_loop():
    with pytest.raises(SynchronousOnlyOperation, match=r"`await realtime\.apublish_many\("):
        publish_many([{"topic": "a", "data": 1}])


@WAYS
def test_of_none_there_is_nothing_to_do(way):
    assert way([]) == []


@pytest.mark.parametrize("way", [publish_many, async_to_sync(apublish_many)])
def test_they_commit_and_roll_back_with_the_transaction(way: Callable[..., Any], announced):
    batch = [{"topic": topic, "data": 1} for topic in "ab"]
    with transaction.atomic():
        way(batch)
        transaction.set_rollback(True)
    assert stored() == announced == []
    with transaction.atomic():
        events = way(batch)
        assert announced == []
    assert announced == [events]


def test_readers_hear_them_in_order():
    async def main() -> tuple[list[Event], list[Any]]:
        async with Subscription() as subscription:
            await subscription.add("a")
            events = await publish_many_now([{"topic": "a", "data": n} for n in range(100)])
            heard = []
            while len(heard) < 100:
                heard += await asyncio.wait_for(subscription.read(100), 20)
        return events, heard

    events, heard = asyncio.run(main())
    assert heard == events
