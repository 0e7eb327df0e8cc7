"""What is counted of publications, and of what they become."""

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from realtime.delivery.fanout import DELIVERIES
from realtime.delivery.publish import publish, publish_now
from realtime.delivery.publish_many import publish_many, publish_many_now
from realtime.delivery.published import PUBLISHED, REFUSED, SECONDS, published_via, publishing_via
from realtime.delivery.subscription import Subscription
from realtime.delivery.synced import Sink
from realtime.delivery.topic_subscriber import RESUMES
from realtime.events.position import Position
from realtime.exceptions import DataTooLarge, InvalidTopic
from realtime.testing import memory_log

from ..support.lanes import FakeLane


def encode(event: object) -> bytes:
    return b"1234"


def counts(via: str = "code") -> tuple[int, int]:
    return PUBLISHED.value(via), SECONDS.count()


async def test_what_is_published_counts_by_its_way():
    with memory_log():
        code, seconds = counts()
        await publish_now("a", 1)
        await publish_now("a", 2, ephemeral=True)
        await publish_many_now([{"topic": "a", "data": 3}, {"topic": "b", "data": 4}])
        await publish_now("a", 5, key="k")
        await publish_now("a", 5, key="k")  # which is stored already
        assert counts() == (code + 5, seconds + 5)
        before, _ = counts("http")
        with publishing_via("http"):
            await publish_now("a", 6)
        assert counts("http") == (before + 1, seconds + 6)
        await publish_now("a", 7)
        assert counts() == (code + 6, seconds + 7)


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_does_not_count():
    before, _ = counts()
    with transaction.atomic():
        publish("a", 1)
        transaction.set_rollback(True)
    assert counts()[0] == before
    with transaction.atomic():
        publish_many([{"topic": "a", "data": 1}, {"topic": "a", "data": 2}])
        assert counts()[0] == before
    assert counts()[0] == before + 2


async def test_what_is_refused_counts_by_its_error(settings):
    settings.REALTIME = {"MAX_EVENT_BYTES": 10}
    reasons = ("too_large", "bad_topic")
    before = [REFUSED.value(reason) for reason in reasons]
    with memory_log():
        with pytest.raises(DataTooLarge):
            await publish_now("a", "x" * 20)
        with pytest.raises(InvalidTopic):
            await sync_to_async(publish)("a b", 1)
    assert (REFUSED.value("too_large"), REFUSED.value("bad_topic")) == (
        before[0] + 1,
        before[1] + 1,
    )


@pytest.mark.usefixtures("one_slice")
async def test_deliveries_count_by_their_path_and_for_each_reader():
    with memory_log():
        first = await publish_now("a", 0)
        before = {path: DELIVERIES.value(path) for path in ("lane", "awaited", "log")}
        recovered = RESUMES.value("true"), RESUMES.value("false")
        lanes = [FakeLane(), FakeLane()]
        readers = [Subscription(Sink(encode, lane)) for lane in lanes]
        async with readers[0], readers[1], Subscription() as other:
            for reader in readers:
                reader.on_ready = lambda: None
                await reader.add("a")
                assert [item async for item in reader.ready()] == []
            await other.add("a", Position(first.epoch, 0))
            assert len(await other.read()) == 1
            for n in range(3):
                await publish_now("a", n)
            await publish_now("a", 4, ephemeral=True)
            assert len([item async for item in other.ready()]) == 4
            unknown = Subscription()
            async with unknown:
                await unknown.add("a", Position("otherlog", 7))
        assert [lane.written for lane in lanes] == [[b"1234"] * 4] * 2
        grown = {path: DELIVERIES.value(path) - before[path] for path in before}
        assert grown == {"lane": 8, "awaited": 4, "log": 1}
        assert RESUMES.value("true") - recovered[0] == RESUMES.value("false") - recovered[1] == 1
        assert (readers[0].sent_events, readers[0].sent_bytes) == (4, 16)
        assert other.sent_events == 5


@pytest.mark.django_db(transaction=True)
def test_a_view_that_has_published_leaves_the_way_of_its_caller_as_it_was(client, admin_user):
    client.force_login(admin_user)
    before = PUBLISHED.value("http")
    batch = '[{"topic": "room.a", "data": 1}]'
    for path, body in (("/topics/room.a/events", "1"), ("/events", batch)):
        answer = client.post(path, body, content_type="application/json")
        assert answer.status_code == 201, answer.content
    assert PUBLISHED.value("http") > before
    assert published_via.get() == "code"
