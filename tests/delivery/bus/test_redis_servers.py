"""`realtime.delivery.bus.redis_servers`: URLs, channels, and where they are."""

from collections import Counter

import pytest
from redis.asyncio import SSLConnection, UnixDomainSocketConnection
from redis.crc import key_slot

from realtime.delivery.bus.redis_servers import (
    PARTITIONS,
    parse_urls,
    tag_of,
    to_channel,
    to_channel_of,
    to_topic,
)

TOPICS = [f"room.{number}" for number in range(20_000)]


def test_partitions_spread_evenly_over_the_slots():
    slots = {key_slot(to_channel(topic).encode()) for topic in TOPICS}
    parts = Counter(slot * PARTITIONS // 16_384 for slot in slots)
    assert parts == dict.fromkeys(range(PARTITIONS), 1)


def test_topics_spread_evenly_over_the_partitions():
    counts = Counter(tag_of(to_channel(topic)) for topic in TOPICS)
    assert len(counts) == PARTITIONS
    assert max(counts.values()) < 2 * len(TOPICS) / PARTITIONS


def test_a_channel_is_what_processes_of_another_release_call_it():
    assert to_channel("room.1") == "realtime:bus:{115}:room.1"


@pytest.mark.parametrize("topic", ["a", "{b}", "}:", "a}:b", "", "ž\r\n"])
def test_a_topic_of_any_characters_is_one_channel(topic):
    channel = to_channel(topic)
    assert to_topic(channel) == topic
    assert key_slot(channel.encode()) == key_slot(tag_of(channel).encode())
    assert key_slot(to_channel_of(tag_of(channel), "x").encode()) == key_slot(channel.encode())


def test_urls_of_single_servers():
    one, two, three = parse_urls(
        "redis://user:a%40%2C%2Fb@one:1/2,rediss://two,unix:///run/redis.sock"
    )
    assert one.pool.connection_kwargs["password"] == "a@,/b"
    assert one.pool.connection_kwargs["username"] == "user"
    assert (one.pool.connection_kwargs["host"], one.pool.connection_kwargs["port"]) == ("one", 1)
    assert two.pool.connection_class is SSLConnection
    assert three.pool.connection_class is UnixDomainSocketConnection
    assert three.pool.connection_kwargs["path"] == "/run/redis.sock"


def test_urls_of_a_cluster():
    one, two = parse_urls("redis+cluster://one:1,rediss+cluster://:secret@two:2")
    assert one.pool.connection_kwargs["host"] == "one"
    assert two.pool.connection_class is SSLConnection
    assert two.pool.connection_kwargs["password"] == "secret"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://one",
        "redis+other://one",
        "redis+sentinel://one",
        "redis://user:se/cret@one",
        "redis+sentinel://user:se/cret@one/name",
    ],
)
def test_what_is_no_url_is_refused_without_its_password(url):
    with pytest.raises(ValueError, match="in passwords, write / as %2F") as caught:
        parse_urls(url)
    assert "cret" not in str(caught.value)
    assert caught.value.__cause__ is None
