"""`realtime.utils.redis_url`: what a URL says, to the log and to the bus."""

import pytest
from redis.asyncio.connection import parse_url

from realtime.utils.redis_url import RedisURL


@pytest.mark.parametrize("url", ["redis://user:a%40b@one:1/2", "rediss://two", "unix:///run/sock"])
def test_one_server(url):
    assert RedisURL.parse(url) == RedisURL(url)


def test_a_cluster():
    url = RedisURL.parse("rediss+cluster://:secret@one:1")
    assert url == RedisURL("rediss://:secret@one:1", is_cluster=True)


def test_sentinels():
    url = RedisURL.parse("redis+sentinel://user:a%40b@one,two:2/name/3?password=other")
    assert url.sentinels == [("one", 26_379), ("two", 2)]
    assert url.sentinel_options == {"password": "other"}
    assert url.master == "name"
    options = parse_url(url.server)
    assert (options["username"], options["password"], options["db"]) == ("user", "a@b", 3)


@pytest.mark.parametrize("url", ["redis+other://:secret@one", "redis+sentinel://:secret@one"])
def test_what_is_no_url_is_refused_without_its_password(url):
    with pytest.raises(ValueError, match=r"is none of redis://, rediss://") as caught:
        RedisURL.parse(url)
    assert "secret" not in str(caught.value)
