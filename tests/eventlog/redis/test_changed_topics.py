"""`realtime.eventlog.redis.changed_topics`; tests/eventlog/test_changes.py has what all logs do."""

from asgiref.sync import async_to_sync
from redis import Redis

from realtime.eventlog.base import Changes, NewEvent
from realtime.eventlog.redis.changed_topics import KEEP_SECONDS, Asked, Mark
from realtime.eventlog.redis.client import Client


def put(log, *topics: str) -> None:
    for topic in topics:
        log.append([NewEvent(topic, "message", "1")])


def changes(log, mark=None, limit: int = 100) -> Changes:
    return async_to_sync(log.changes)(mark, limit)


def lists(url: str) -> dict[str, float]:
    """The topics that are in any list of those that have changed, with their times."""
    with Redis.from_url(url) as client:
        keys = client.scan_iter("realtime:log:*:changes")
        pairs = [pair for key in keys for pair in client.zrange(key, 0, -1, withscores=True)]
    return {name.decode(): score for name, score in pairs}


def moved(mark: Mark, seconds: float) -> Mark:
    """As if it had been asked earlier or later."""
    by = round(seconds * 1_000_000)
    return {part: Asked(*(str(int(at) + by) for at in asked)) for part, asked in mark.items()}


def age(url: str, topic: str, seconds: float = KEEP_SECONDS + 1) -> None:
    """As if the topic's last event had been so long ago; a minute."""
    with Redis.from_url(url) as client:
        for key in client.scan_iter("realtime:log:*:changes"):
            if client.zscore(key, topic) is not None:
                client.zincrby(key, -seconds * 1_000_000, topic)


def test_it_costs_by_what_has_changed_and_not_by_topics(redis_log, monkeypatch):
    put(redis_log, *(f"user.{n}" for n in range(200)))
    mark = changes(redis_log).mark
    asked = []
    original = Client.ask

    async def ask(client, what, keys, values=()):
        asked.append(len(keys))
        return await original(client, what, keys, values)

    monkeypatch.setattr(Client, "ask", ask)
    following = changes(redis_log, mark)
    assert (following.heads, asked) == ({}, [128])
    put(redis_log, "user.7", "user.8")
    found = changes(redis_log, following.mark)
    assert sorted(found.heads or ()) == ["user.7", "user.8"]
    assert asked == [128, 128, 2]


def test_a_change_is_forgotten_after_a_minute_and_who_asks_then_compares_all(
    redis_log, shared_valkey
):
    put(redis_log, "a", "b")
    mark = changes(redis_log).mark
    late = moved(mark, -(KEEP_SECONDS + 1))
    age(shared_valkey.url, "a")
    assert changes(redis_log, late).heads is None
    assert list(lists(shared_valkey.url)) == ["b"]
    age(shared_valkey.url, "b")
    redis_log.prune()  # of a site on which nobody asks
    assert lists(shared_valkey.url) == {}


def test_a_clock_that_went_back_has_all_compared(redis_log):
    put(redis_log, "a")
    mark = changes(redis_log).mark
    found = changes(redis_log, moved(mark, 10))
    assert found.heads is None
    put(redis_log, "a")
    assert list(changes(redis_log, found.mark).heads) == ["a"]


def test_what_a_clock_that_was_set_back_has_stamped_is_found(redis_log, shared_valkey):
    """It is ahead of the last question again by the next one."""
    mark = moved(changes(redis_log).mark, -2)
    mark = changes(redis_log, mark).mark
    put(redis_log, "a")
    age(shared_valkey.url, "a", 1)
    assert list(changes(redis_log, mark).heads or ()) == ["a"]
