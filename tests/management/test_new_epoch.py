"""`manage.py new_epoch`: what a restored backup needs."""

from io import StringIO

import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command
from django.test import override_settings

from realtime.delivery.publish import publish, publish_now
from realtime.delivery.subscription import Subscription
from realtime.delivery.topic_subscriber import Reset
from realtime.eventlog.memory import MemoryLog
from realtime.models import Event, Topic

pytestmark = pytest.mark.django_db(transaction=True)


def new_epoch(*arguments: str) -> str:
    out = StringIO()
    call_command("new_epoch", *arguments, stdout=out)
    return out.getvalue().strip()


def epochs() -> dict[str, str]:
    return dict(Topic.objects.values_list("name", "epoch"))


def test_of_some_or_of_all():
    for topic in ("a", "b", "c"):
        publish(topic, 1)
    before = epochs()
    assert new_epoch("a", "b", "a") == "A new epoch of 2 topics."
    between = epochs()
    assert {name for name in before if before[name] != between[name]} == {"a", "b"}
    assert new_epoch("--all") == "A new epoch of 3 topics."
    assert not set(before.values()) & set(epochs().values())
    assert Event.objects.count() == 3


def test_topics_that_are_not_there_are_named_and_the_others_done():
    publish("a", 1)
    before = epochs()
    out = StringIO()
    with pytest.raises(CommandError, match="no topic 'b', 'c'"):
        call_command("new_epoch", "b", "a", "c", stdout=out)
    assert out.getvalue() == "A new epoch of 1 topic.\n"
    assert epochs()["a"] != before["a"]


@pytest.mark.parametrize("name", ["a b", "", "\udcff"], ids=ascii)  # \udcff: of no UTF-8
def test_what_can_be_no_topic_is_refused_before_any_is_done(name):
    publish("a", 1)
    before = epochs()
    with pytest.raises(CommandError, match="can't be a topic"):
        new_epoch("a", name)
    assert epochs() == before


@pytest.mark.parametrize("arguments", [[], ["a", "--all"]])
def test_one_has_to_say_which(arguments):
    with pytest.raises(CommandError, match="--all"):
        new_epoch(*arguments)


@pytest.mark.parametrize("log", ["database", "memory"])
async def test_a_log_that_went_backwards_and_its_readers(log):
    """A backup from before events 3 to 5 is restored under a reader who has seen them."""
    memory = MemoryLog()
    realtime = {"HEAD_CHECK_SECONDS": 0.05}
    if log == "memory":
        realtime["EVENT_LOG"] = lambda: memory
    with override_settings(REALTIME=realtime):
        events = [await publish_now("a", number) for number in range(5)]
        async with Subscription() as live:
            await live.add("a")
            await _restore(memory if log == "memory" else None, 2)
            await _renew()
            [item] = await live.read(5)
            assert isinstance(item, Reset)
            assert item.position.offset == 2
            async with Subscription() as late:
                started = await late.add("a", events[4].position)
                assert not started.recovered, "its position could be another event's by now"
            event = await publish_now("a", "after")
            assert event.position.epoch != events[0].position.epoch
            assert event.position.offset == 3
            [heard] = await live.read(5)
            assert (heard.id, heard.data) == (event.id, '"after"')


async def _restore(memory: MemoryLog | None, kept: int) -> None:
    if memory is not None:
        del memory._kept["a"][kept:]
        memory._heads["a"] = memory._kept["a"][-1].position
        return
    await Event.objects.filter(offset__gt=kept).adelete()
    await Topic.objects.aupdate(head=kept)


async def _renew() -> None:
    await sync_to_async(new_epoch)("--all")


def test_a_log_that_can_not():
    class Other(MemoryLog):
        start_epoch = MemoryLog.__mro__[1].start_epoch

    with (
        override_settings(REALTIME={"EVENT_LOG": Other}),
        pytest.raises(NotImplementedError, match="Other can't begin a new epoch"),
    ):
        new_epoch("--all")
