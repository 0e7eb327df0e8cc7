"""`realtime.eventlog.redis.keyspace`."""

from collections import Counter

from redis.crc import key_slot

from realtime.eventlog.redis.keyspace import Keyspace


def test_topics_spread_over_the_partitions():
    space = Keyspace(16)
    counts = Counter(space.tag(f"room.{n}") for n in range(1_600))
    assert len(counts) == 16
    assert max(counts.values()) < 200


def test_all_that_one_script_touches_is_in_one_slot():
    space = Keyspace(128)
    for topic in ("room.lobby", "user.7", "a-b_c"):
        keys = [
            space.meta(topic),
            space.stream(topic),
            space.topics(topic),
            space.list_of(space.tag(topic)),
            space.changes(topic),
            space.changes_of(space.tag(topic)),
            space.key(topic, "0f"),
            space.writer(topic, "w"),
        ]
        assert len({key_slot(key.encode()) for key in keys}) == 1
        assert len(set(keys)) == 6
