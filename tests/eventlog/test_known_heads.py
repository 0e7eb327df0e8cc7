"""`realtime.eventlog.known_heads`: a log that went backwards begins a new epoch, once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from unittest.mock import patch

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction
from django.test import override_settings

from realtime import models
from realtime.delivery.publish import publish_now
from realtime.delivery.subscription import Subscription
from realtime.delivery.topic_subscriber import Reset
from realtime.eventlog import database, known_heads, writer
from realtime.eventlog.base import NewEvent
from realtime.eventlog.known_heads import KnownHeads, is_behind
from realtime.events.event import Event
from realtime.events.position import Position

from .support import Threads, append, fill, log, offsets

pytestmark = pytest.mark.django_db(transaction=True)


# -- what is known


def test_a_position_that_is_older_changes_nothing():
    heads = KnownHeads()
    heads.note([("a", Position("one", 5)), ("a", Position("one", 4)), ("b", Position("two", 1))])
    assert heads.of(["a", "b", "c"]) == {"a": Position("one", 5), "b": Position("two", 1)}
    heads.note([("a", Position("other", 1))])
    assert heads.of(["a"]) == {"a": Position("other", 1)}


def test_so_many_topics_are_known_and_no_more(monkeypatch):
    monkeypatch.setattr(known_heads, "MAX_TOPICS", 3)
    heads = KnownHeads()
    for name in ("a", "b", "c", "a", "d"):
        heads.note([(name, Position("one", 1))])
    assert list(heads.of("abcd")) == ["a", "c", "d"]


@pytest.mark.parametrize(
    ("known", "answer"),
    [
        (None, False),
        (Position("one", 5), False),
        (Position("one", 6), True),
        (Position("other", 6), False),
    ],
)
def test_a_log_is_behind_what_is_known_of_its_epoch(known, answer):
    assert is_behind(Position("one", 5), known) is answer


# -- a database that is set back while it serves


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    with override_settings(REALTIME={"HEAD_CHECK_SECONDS": 0.1, "PRUNE_INTERVAL_SECONDS": None}):
        yield


def set_back(topic: str, head: int) -> None:
    """As by a failover to a replica that was behind, or by a restore."""
    models.Event.objects.filter(topic__name=topic, offset__gt=head).delete()
    assert models.Topic.objects.filter(name=topic).update(head=head) == 1


def append_elsewhere(topic: str, count: int) -> None:
    """Append in another process, which has not seen what was lost; its announcements are lost."""
    stranger = KnownHeads()
    with (
        patch.object(writer, "known_heads", stranger),
        patch.object(database, "known_heads", stranger),
    ):
        for number in range(count):
            append(topic, "message", f"{number}.5")


async def nothing() -> None:
    """Nobody appends; only the check of the heads can find it."""


async def here() -> None:
    await publish_now("a", "here")


async def elsewhere() -> None:
    await sync_to_async(append_elsewhere)("a", 2)


async def elsewhere_and_past_what_was_known() -> None:
    await sync_to_async(append_elsewhere)("a", 8)


@pytest.mark.parametrize("then", [nothing, here, elsewhere, elsewhere_and_past_what_was_known])
def test_readers_of_a_log_that_went_backwards_get_a_reset_and_all_that_follows(then, caplog):
    async def main() -> None:
        for number in range(5):
            await publish_now("a", number)
        async with Subscription() as subscription:
            started = await subscription.add("a")
            assert started.position.offset == 5
            await publish_now("a", 6)
            (event,) = await subscription.read(10)
            assert isinstance(event, Event)
            await sync_to_async(at_once)(then)
            (reset,) = await subscription.read(10)
            assert isinstance(reset, Reset)
            head = await sync_to_async(models.Topic.objects.get)(name="a")
            assert reset.position == Position(head.epoch, head.head)
            assert head.epoch != event.epoch
            await publish_now("a", "after")
            (after,) = await subscription.read(10)
            assert isinstance(after, Event)
            assert (after.epoch, after.offset) == (head.epoch, head.head + 1)
        async with Subscription() as another:  # of another process, or of one that comes back
            assert not (await another.add("a", event.position)).recovered

    def at_once(then: Callable[[], Awaitable[None]]) -> None:
        """Between two checks of the heads."""
        with transaction.atomic():
            set_back("a", 2)
            if then in (elsewhere, elsewhere_and_past_what_was_known):
                append_elsewhere("a", 2 if then is elsewhere else 8)
        if then is here:
            asyncio.run(here())

    asyncio.run(main())
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
    assert "The log of a went back: it had events up to" in caplog.text


def test_several_that_find_it_begin_one_epoch(caplog):
    epoch = fill("a", 5)
    event = Event("a", "message", "1", epoch, 5)
    set_back("a", 3)
    with Threads(4) as threads:
        for _ in range(4):
            threads.start(writer.end_epoch, "a", event.position, event)
    assert caplog.text.count("The log of a went back") == 1
    assert models.Topic.objects.get(name="a").epoch != epoch
    assert offsets("a") == [1, 2, 3]


@pytest.mark.parametrize(("meta", "is_another"), [(None, True), ('{"sender":1}', False)])
def test_the_same_data_of_another_sender_is_another_event(meta, is_another):
    [event] = log.append([NewEvent("a", "message", "1", '{"sender":1}')])
    known = Event("a", "message", "1", event.epoch, 1, meta)
    writer.end_epoch("a", known.position, known)
    assert (models.Topic.objects.get(name="a").epoch != event.epoch) is is_another


@pytest.mark.parametrize("head", [5, 7])
def test_an_answer_that_was_old_ends_no_epoch(head):
    """As from a replica that is behind, behind a pooler that sends reads there."""
    epoch = fill("a", head)
    writer.end_epoch("a", Position(epoch, 5))
    writer.end_epoch("a", Position(epoch, 5), Event("a", "message", "1", epoch, 5))
    assert models.Topic.objects.get(name="a").epoch == epoch


def test_what_was_rolled_back_was_never_there(caplog):
    epoch = fill("a", 2)
    with transaction.atomic():
        append("a", "message", "1")
        transaction.set_rollback(True)
    with transaction.atomic():
        with transaction.atomic():
            append("a", "message", "1")
            transaction.set_rollback(True)
        append("a", "message", "1")
    assert append("a", "message", "1").position == Position(epoch, 4)
    assert not caplog.records


def test_appends_and_looks_at_the_same_time_raise_no_alarm(caplog):
    epoch = fill("a", 1)

    def look() -> None:
        for _ in range(30):
            log._heads(["a"])

    with Threads(4) as threads:
        for _ in range(2):
            threads.start(fill, "a", 30)
            threads.start(look)
    assert models.Topic.objects.get(name="a").epoch == epoch
    assert offsets("a") == list(range(1, 62))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
