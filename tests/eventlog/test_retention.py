"""Which events retention deletes, and that nobody waits for it, on whichever database."""

import threading
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from realtime import models
from realtime.eventlog import retention
from realtime.events.position import OLDEST

from .support import Threads, after_first_call, age, append, fill, log, offsets, read

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("ages", "seconds", "events", "kept"),
    [
        ([9, 9, 1, 1], 5, None, [3, 4]),
        ([1, 1, 1, 1], 5, None, [1, 2, 3, 4]),
        ([9, 9, 9, 9], 5, None, []),
        ([1, 1, 1, 1], None, 2, [3, 4]),
        ([9, 9, 9, 9], None, 4, [1, 2, 3, 4]),
        ([9, 9, 9, 9], None, None, [1, 2, 3, 4]),
        ([9, 1, 1, 1], 5, 2, [3, 4]),
        ([9, 9, 9, 1], 5, 2, [4]),
        # Clocks of several hosts disagree: what is kept stays consecutive.
        ([9, 1, 9, 1], 5, None, [2, 3, 4]),
        ([1, 9, 9, 9], 5, None, [1, 2, 3, 4]),
        ([9, -9, 9, 9], 5, None, [2, 3, 4]),
    ],
)
def test_prune(ages, seconds, events, kept):
    fill("a", 4)
    fill("b", 1)
    age("a", dict(enumerate(ages, 1)))
    realtime = {"RETENTION_SECONDS": seconds, "RETENTION_EVENTS": events}
    with override_settings(REALTIME=realtime):
        pruned = retention.prune()
        assert retention.prune() == {}, "the second time there is nothing to do"
    assert offsets("a") == kept
    assert offsets("b") == [1]
    assert pruned == ({"a": 4 - len(kept)} if len(kept) < 4 else {})
    assert append("a", "message", "1").offset == 5


TOPICS = {
    "room.keep": {"RETENTION_EVENTS": None, "RETENTION_SECONDS": None},
    "room.*": {"RETENTION_EVENTS": 1},
    "*.old": {"RETENTION_SECONDS": 5, "RETENTION_EVENTS": None},
    "a_b": {"RETENTION_EVENTS": 2},
}


def test_each_topic_is_pruned_by_the_first_pattern_that_matches_it():
    kept = {
        "room.keep": [1, 2, 3, 4],
        "room.a": [4],
        "room.old": [4],  # by the pattern before
        "Room.a": [2, 3, 4],  # by the site
        "b.old": [3, 4],
        "b.OLD": [2, 3, 4],
        "a_b": [3, 4],
        "axb": [2, 3, 4],
    }
    for topic in kept:
        fill(topic, 4)
        age(topic, {1: 9, 2: 9, 3: 1, 4: 1})
    site = {"RETENTION_EVENTS": 3, "RETENTION_SECONDS": None, "TOPICS": TOPICS}
    with override_settings(REALTIME=site):
        pruned = retention.prune()
        assert retention.prune() == {}
    assert {topic: offsets(topic) for topic in kept} == kept
    assert pruned == {topic: 4 - len(left) for topic, left in kept.items() if len(left) < 4}


@pytest.mark.parametrize("own", [{"RETENTION_EVENTS": 1}, {"RETENTION_SECONDS": 5}])
def test_a_site_may_keep_all_but_what_a_pattern_names(own):
    for topic in ("a", "b"):
        fill(topic, 2)
        age(topic, {1: 9})
    site = {"RETENTION_EVENTS": None, "RETENTION_SECONDS": None, "TOPICS": {"a": own}}
    with override_settings(REALTIME=site):
        assert retention.prune() == {"a": 1}
    with override_settings(REALTIME={**site, "TOPICS": {}}):
        assert retention.prune() == {}


def test_prune_says_what_went_by_topic():
    fill("a", 5)
    fill("b", 4)
    fill("c", 2)
    models.Topic.objects.create(name="empty")
    with override_settings(REALTIME={"RETENTION_EVENTS": 2}):
        assert retention.prune() == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    "realtime",
    [
        {"RETENTION_EVENTS": 1},
        {"RETENTION_SECONDS": None},
        {"RETENTION_EVENTS": 1, "TOPICS": TOPICS},
    ],
)
def test_topics_with_nothing_to_prune_cost_one_query(realtime):
    topics = models.Topic.objects.bulk_create(
        [models.Topic(name=f"t{number}", head=1) for number in range(1_200)]
    )
    models.Event.objects.bulk_create([models.Event(topic=t, offset=1, data="1") for t in topics])
    with override_settings(REALTIME=realtime), CaptureQueriesContext(connection) as queries:
        assert retention.prune() == {}
    assert len(queries) == 2  # the other looks for expired keys


def test_the_pruning_has_its_turn_once_in_an_interval():
    assert retention.claim_pruning(60)
    assert not retention.claim_pruning(60)
    row = models.Topic.objects.filter(name=retention.PRUNING_ROW)
    row.update(created=Now() - timedelta(seconds=61))
    with Threads(2) as run:
        claims: list[bool] = []
        for _ in range(2):
            run.start(lambda: claims.append(retention.claim_pruning(60)))
    assert sorted(claims) == [False, True]


def test_whose_turn_it_is_not_prunes_nothing():
    fill("a", 2)
    with override_settings(REALTIME={"RETENTION_EVENTS": 1}):
        assert retention.claim_pruning(60)
        assert log.prune_in_turn(60) == {}
        assert log.prune() == {"a": 1}, "who is told to, does"


def test_prune_in_batches():
    fill("a", 7)
    with (
        patch("realtime.eventlog.retention.DELETE_BATCH", 2),
        override_settings(REALTIME={"RETENTION_EVENTS": 2}),
        CaptureQueriesContext(connection) as queries,
    ):
        assert retention.prune() == {"a": 5}
    assert offsets("a") == [6, 7]
    assert sum(query["sql"].startswith("DELETE") for query in queries) == 3


def test_an_event_appended_while_its_topic_is_pruned_is_kept():
    """Everything is old; the young event comes between the looks at the ages and the delete."""
    fill("a", 3)
    age("a", {1: 99, 2: 99, 3: 99})
    with (
        after_first_call(retention, "_last_expired", lambda: fill("a", 1)),
        override_settings(REALTIME={"RETENTION_SECONDS": 10}),
    ):
        assert retention.prune() == {"a": 3}
    assert offsets("a") == [4]


def test_many_topics_are_pruned_while_others_publish():
    many = 2_100  # more than one fetch of an iterator
    topics = models.Topic.objects.bulk_create(
        [models.Topic(name=f"t{n}", head=2 if n < 50 else 1) for n in range(many)]
    )
    models.Event.objects.bulk_create(
        [
            models.Event(topic=topic, offset=offset, data="1")
            for topic in topics
            for offset in range(1, topic.head + 1)
        ]
    )
    drop = retention._drop_through
    appended = []

    def publish_and_drop(*args):
        if len(appended) < 3:
            with Threads(1) as run:
                run.start(lambda: appended.append(append(f"new{len(appended)}", "m", "1")))
        return drop(*args)

    with (
        patch.object(retention, "_drop_through", publish_and_drop),
        override_settings(REALTIME={"RETENTION_EVENTS": 1, "RETENTION_SECONDS": None}),
    ):
        assert retention.prune() == {topic.name: 1 for topic in topics[:50]}
    assert len(appended) == 3


def test_prune_beside_publishers_and_readers():
    total = 120
    done = threading.Event()

    def publish() -> None:
        try:
            for n in range(total):
                append("a", "message", str(n))
        finally:
            done.set()

    def prune() -> None:
        while not done.is_set():
            retention.prune()

    def watch() -> None:
        while not done.is_set():
            kept = offsets("a")
            assert kept == list(range(kept[0], kept[0] + len(kept))) if kept else True

    with override_settings(REALTIME={"RETENTION_EVENTS": 10}):
        with Threads(3) as run:
            run.start(watch)
            run.start(prune)
            run.start(publish)
        retention.prune()
    assert offsets("a") == list(range(total - 9, total + 1))
    assert [event.data for event in read("a", OLDEST).events] == [
        str(n) for n in range(total - 10, total)
    ]


def test_a_host_whose_clock_is_wrong_neither_dates_nor_prunes_events():
    fill("a", 1)
    with patch.object(timezone, "now", lambda: datetime.now(UTC) + timedelta(hours=3)):
        fill("a", 1)
        with override_settings(REALTIME={"RETENTION_SECONDS": 3600}):
            assert retention.prune() == {}
    (first, second) = models.Event.objects.order_by("offset").values_list("created", flat=True)
    assert timedelta(0) <= second - first < timedelta(minutes=5)
    assert abs(datetime.now(UTC) - first) < timedelta(minutes=5)
