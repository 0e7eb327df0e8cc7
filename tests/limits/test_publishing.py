"""`realtime.limits.publishing`: what holds by the topic."""

import pytest
from django.test import override_settings

from realtime.delivery.publish import publish_now
from realtime.exceptions import DataTooLarge, RateLimited
from realtime.limits.publishing import admit, note_published
from realtime.testing import memory_log

from .support import by_session

SLOW = {"TOPICS": {"slow.*": {"PUBLISH_RATE": "3/d"}}}


@override_settings(REALTIME=SLOW)
async def test_a_topic_s_rate_is_of_all_its_publishers_together():
    for number in range(3):
        await admit(by_session(number), ["slow.a"])
    with pytest.raises(RateLimited, match=r"3/d \(PUBLISH_RATE\)"):
        await admit(by_session(9), ["slow.a"])
    await admit(by_session(9), ["slow.b"])
    for _ in range(100):
        await admit(by_session(9), ["other"])


@override_settings(REALTIME=SLOW)
async def test_a_batch_counts_each_of_its_events():
    with pytest.raises(DataTooLarge, match="4 at once"):
        await admit(by_session(), ["slow.a"] * 4)
    await admit(by_session(), ["slow.a", "slow.b", "slow.a"])
    with pytest.raises(RateLimited):
        await admit(by_session(), ["slow.b", "slow.a", "slow.a"])
    await admit(by_session(), ["slow.b", "slow.a", "slow.b"])  # which had cost nothing


async def published(client, topic: str) -> None:
    await admit(client, [topic])
    await note_published(client, [await publish_now(topic, 1)])


async def test_new_topics_have_a_rate_and_those_that_exist_go_on():
    with override_settings(REALTIME={"RATE_TOPICS_PER_USER": "2/d"}), memory_log():
        client = by_session()
        for topic in ("a", "b", "a", "b"):
            await published(client, topic)
        with pytest.raises(RateLimited, match="RATE_TOPICS_PER_USER"):
            await admit(client, ["a", "c"])
        for topic in ("a", "b"):
            await published(client, topic)
        await published(by_session(2), "c")
        await published(client, "c")


async def test_what_comes_again_with_its_key_makes_no_topic():
    with override_settings(REALTIME={"RATE_TOPICS_PER_USER": "2/d"}), memory_log():
        client = by_session()
        for _ in range(10):
            event = await publish_now("a", 1, key="k")
            await note_published(client, [event])
        await published(client, "b")
