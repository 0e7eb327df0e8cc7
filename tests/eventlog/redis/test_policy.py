"""`realtime.eventlog.redis.policy`: a server that would lose events is refused, with the remedy."""

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings
from redis import Redis

from realtime.checks import check_event_log
from realtime.eventlog.redis.log import RedisLog
from realtime.exceptions import RealtimeConfigurationError
from realtime.utils.background_loop import background_loop

from ..support import redis_log_at


def ids(log: RedisLog, url: str = "redis://given", **more: bool) -> list[str | None]:
    with override_settings(REALTIME={"REDIS_LOG_URL": url, **more}):
        return [message.id for message in log.check()]


def test_a_server_that_keeps_all_is_fine(redis_log):
    assert ids(redis_log) == []


def test_without_an_address(redis_log):
    [message] = RedisLog().check()
    assert message.id == "realtime.E014"
    assert "REDIS_LOG_URL" in message.msg


@pytest.mark.parametrize(
    "url", ["nonsense", "http://host", "redis://h:port/0", "redis+sentinel://a", "redis://u:se/c@h"]
)
def test_what_is_no_address(redis_log, url):
    with override_settings(REALTIME={"REDIS_LOG_URL": url}):
        [message] = redis_log.check()
    assert message.id == "realtime.E014"
    assert "none of redis://" in message.msg
    assert "se/c" not in message.msg


def test_the_systems_checks_go_through_it(shared_valkey):
    log = "realtime.eventlog.redis.log.RedisLog"
    with override_settings(REALTIME={"EVENT_LOG": log, "REDIS_LOG_URL": shared_valkey.url}):
        assert check_event_log() == []
    background_loop.stop()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_evicts_is_neither_accepted_nor_ready(valkey, policy):
    log = redis_log_at(valkey.url)
    with Redis.from_url(valkey.url) as client:
        client.config_set("maxmemory-policy", policy)
        assert ids(log) == []  # there is no limit at which it would
        client.config_set("maxmemory", "100mb")
    assert ids(log) == ["realtime.E015"]
    with pytest.raises(RealtimeConfigurationError, match="maxmemory-policy noeviction"):
        async_to_sync(log.check_writable)()
    with Redis.from_url(valkey.url) as client:
        client.config_set("maxmemory-policy", "noeviction")
    assert ids(log) == []
    async_to_sync(log.check_writable)()
    background_loop.stop()


def test_restarts_are_trusted_only_where_each_write_is_on_the_disk(valkey):
    log = redis_log_at(valkey.url)
    assert ids(log, REDIS_LOG_TRUST_RESTART=True) == ["realtime.E017"]
    with Redis.from_url(valkey.url) as client:
        client.config_set("appendonly", "yes")
        assert ids(log, REDIS_LOG_TRUST_RESTART=True) == ["realtime.E017"]
        client.config_set("appendfsync", "always")
        assert ids(log, REDIS_LOG_TRUST_RESTART=True) == []
        client.config_set("appendonly", "no")  # it does not end while it writes its first file
    background_loop.stop()


def test_a_user_that_may_not_run_scripts_or_info_is_reported(valkey):
    with Redis.from_url(valkey.url) as client:
        client.acl_setuser(
            "site",
            enabled=True,
            passwords=["+secret"],
            categories=["+@all"],
            keys=["*"],
            commands=["-info"],
        )
    url = valkey.url.replace("redis://", "redis://site:secret@")
    log = redis_log_at(url)
    with override_settings(REALTIME={"REDIS_LOG_URL": url}):
        [message] = log.check()
    assert message.id == "realtime.W012"
    assert "info" in message.msg.lower()
    background_loop.stop()


def test_a_server_that_is_away_is_a_warning(valkey):
    log = redis_log_at(valkey.url)
    valkey.kill()
    assert ids(log) == ["realtime.W012"]
    background_loop.stop()
