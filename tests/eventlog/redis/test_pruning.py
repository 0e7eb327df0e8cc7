"""`realtime.eventlog.redis.pruning`; `tests/eventlog/test_base.py` has what holds for all logs."""

import time
from itertools import count
from unittest.mock import patch

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings
from redis import Redis

from realtime.eventlog.base import NewEvent
from realtime.eventlog.redis import pruning
from realtime.eventlog.redis.log import RedisLog
from realtime.events.position import OLDEST, START
from tests.support.attempts import three_tries

pytestmark = pytest.mark.django_db(transaction=True)


def fill(log: RedisLog, topic: str, number: int) -> None:
    log.append([NewEvent(topic, "message", str(n)) for n in range(number)])


def kept(log: RedisLog, topic: str) -> list[int]:
    return [event.offset for event in async_to_sync(log.read)(topic, OLDEST, 10_000).events]


def test_many_topics_and_many_events_a_few_at_a_time(redis_log):
    attempts = count()

    def prune() -> None:
        attempt = next(attempts)
        names = [f"t{attempt}.{n}" for n in range(7)]
        for name in names:
            fill(redis_log, name, 25)
        time.sleep(0.6)
        fill(redis_log, names[0], 1)
        with (
            patch.object(pruning, "TOPICS_PER_CALL", 2),
            patch.object(pruning, "EVENTS_PER_CALL", 10),
            override_settings(REALTIME={"RETENTION_SECONDS": 0.5, "RETENTION_EVENTS": None}),
        ):
            found = redis_log.prune()
        assert {name: found.get(name) for name in names} == dict.fromkeys(names, 25)
        assert kept(redis_log, names[1]) == []
        assert async_to_sync(redis_log.heads)(names)[names[1]].offset == 25

    three_tries(prune)  # the last event expires after half a second too


def test_an_append_keeps_no_more_than_a_node_over_the_limit(redis_log):
    with override_settings(REALTIME={"RETENTION_EVENTS": 10}):
        for _ in range(30):
            fill(redis_log, "a", 20)
        assert 10 <= len(kept(redis_log, "a")) <= 10 + 100
        redis_log.prune()
    assert kept(redis_log, "a") == list(range(591, 601))


def test_without_limits_all_is_kept(redis_log):
    fill(redis_log, "a", 3)
    with override_settings(REALTIME={"RETENTION_SECONDS": None, "RETENTION_EVENTS": None}):
        assert redis_log.prune() == {}
    assert kept(redis_log, "a") == [1, 2, 3]


def test_publishers_keys_are_forgotten_by_themselves(redis_log, shared_valkey):
    with override_settings(REALTIME={"IDEMPOTENCY_SECONDS": 0.2}):
        redis_log.append([NewEvent("a", "message", "1", key="k")])
        time.sleep(0.4)
        [event] = redis_log.append([NewEvent("a", "message", "2", key="k")])
    assert (event.offset, event.is_repeated) == (2, False)
    with Redis.from_url(shared_valkey.url) as client:
        lasting = {key for key in client.scan_iter() if client.ttl(key) == -1}
    # "changes": where the topic is for a minute after its last event.
    names = {b"meta:a", b"stream:a", b"topics", b"changes"}
    assert {key.rpartition(b"}:")[2] for key in lasting} == names


def test_a_topic_all_of_whose_events_have_gone_gets_a_new_epoch_too(redis_log):
    fill(redis_log, "a", 3)
    with override_settings(REALTIME={"RETENTION_EVENTS": 1}):
        redis_log.prune()
    before = async_to_sync(redis_log.heads)(["a"])["a"]
    assert redis_log.start_epoch() == 1
    after = async_to_sync(redis_log.heads)(["a"]).get("a", START)
    assert (after.offset, after.epoch == before.epoch) == (3, False)


def test_a_topic_has_retention_of_its_own(redis_log):
    own = {"TOPICS": {"short.*": {"RETENTION_EVENTS": 2}, "old.*": {"RETENTION_SECONDS": 0.001}}}
    with override_settings(REALTIME=own):
        for topic in ("short.a", "old.a", "other"):
            fill(redis_log, topic, 5)
        time.sleep(0.01)
        assert redis_log.prune() == {"short.a": 3, "old.a": 5}
        for _ in range(20):
            fill(redis_log, "short.a", 20)
    assert len(kept(redis_log, "short.a")) <= 102
