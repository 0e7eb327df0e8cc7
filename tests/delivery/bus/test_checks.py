"""`realtime.delivery.bus.checks`: a layer that does not reach the others, or anybody reaches."""

import copy
import runpy
import sys

import pytest
from django.test import override_settings

from project.settings import LAYERS
from realtime.delivery.bus import checks
from realtime.delivery.bus.base import BUSES
from realtime.delivery.bus.serializer import FORMAT
from realtime.server.workers import WORKERS_VARIABLE

from ...support.bus_servers import ValkeyNode
from ...support.servers import ROOT
from ...test_checks import ids, run

# -- realtime.E004: the channel layer

MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
KEYS = {"symmetric_encryption_keys": ["only for tests"]}
REDIS = {
    "default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {**KEYS}}
}


@pytest.mark.parametrize(
    ("workers", "layers", "realtime", "found"),
    [
        ("1", MEMORY, {}, []),
        ("1", {}, {}, []),
        ("2", MEMORY, {}, ["realtime.E004"]),
        ("2", {}, {}, ["realtime.E004"]),
        ("2", REDIS, {}, []),
        ("2", REDIS, {"CHANNEL_LAYER": "other"}, ["realtime.E004"]),
        ("2", {**MEMORY, "other": REDIS["default"]}, {"CHANNEL_LAYER": "other"}, []),
        ("2", REDIS, {"BUS": "memory"}, ["realtime.E004"]),
        ("1", MEMORY, {"BUS": "memory"}, []),
        ("2", MEMORY, {"BUS": "redis", "REDIS_BUS_URL": "redis://one"}, []),
    ],
)
def test_e004_workers_that_can_not_talk(monkeypatch, workers, layers, realtime, found):
    monkeypatch.setenv(WORKERS_VARIABLE, workers)
    assert ids(CHANNEL_LAYERS=layers, REALTIME=realtime) == found


def test_e003_an_unknown_word_and_the_words_there_are():
    with override_settings(REALTIME={"BUS": "kafka"}):
        [message] = run()
    assert message.id == "realtime.E003"
    assert "'kafka'" in message.msg
    assert set(str(message.hint).rstrip(".").split()[2:]) == {*BUSES, "channels", "memory", "or"}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_e010_a_layer_that_is_not_installed(monkeypatch, workers):
    monkeypatch.setenv(WORKERS_VARIABLE, workers)
    monkeypatch.setitem(sys.modules, "channels_redis", None)
    monkeypatch.delitem(sys.modules, "channels_redis.pubsub", raising=False)
    with override_settings(CHANNEL_LAYERS=REDIS):
        [message] = run()
    assert message.id == "realtime.E010"
    assert "pip install 'django-realtime-port[redis]'" in str(message.hint)


def redis_with(**options):
    host = {"address": "redis://localhost", **options}
    return {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [host], **KEYS},
        }
    }


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        (redis_with(socket_timeout=5), ["realtime.W006"]),
        (redis_with(socket_timeout=5.5), []),
        (redis_with(socket_timeout=None), []),
        (redis_with(address="redis://localhost?socket_timeout=2"), ["realtime.W006"]),
        (REDIS, []),
        (MEMORY, []),
    ],
)
def test_w006_a_client_that_gives_up_before_redis_answers(layers, found):
    assert ids(CHANNEL_LAYERS=layers) == found


def test_w006_the_layer_that_settings_offer_is_patient():
    layer = copy.deepcopy(LAYERS["redis"])
    layer["CONFIG"]["hosts"][0]["address"] = "redis://localhost"
    assert ids(CHANNEL_LAYERS={"default": layer}) == []


@pytest.mark.parametrize("kind", ["core.RedisChannelLayer", "pubsub.RedisPubSubChannelLayer"])
@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({}, ["realtime.W009"]),
        ({"symmetric_encryption_keys": []}, ["realtime.W009"]),
        (KEYS, []),
    ],
)
def test_w009_redis_without_keys(kind, config, found):
    hosts = redis_with(socket_timeout=15.0)["default"]["CONFIG"]["hosts"]
    layer = {"BACKEND": f"channels_redis.{kind}", "CONFIG": {"hosts": hosts, **config}}
    assert ids(CHANNEL_LAYERS={"default": layer}) == found


def test_w009_the_layers_that_settings_offer_have_the_keys_of_the_site(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "new")
    monkeypatch.setenv("SECRET_KEY_FALLBACKS", "older,oldest")
    offered = runpy.run_path(str(ROOT / "project/settings.py"))["LAYERS"]
    for name in ("redis", "redis-pubsub"):
        assert offered[name]["CONFIG"]["serializer_format"] == FORMAT
        assert offered[name]["CONFIG"]["symmetric_encryption_keys"] == ["new", "older", "oldest"]


def test_without_the_variable_there_is_one_worker(monkeypatch):
    monkeypatch.delenv(WORKERS_VARIABLE, raising=False)
    assert ids(CHANNEL_LAYERS=MEMORY) == []


# -- buses of our own


def find(**realtime):
    """What the checks find about the bus, with these settings."""
    with override_settings(REALTIME=realtime):
        return [(message.id, message.msg) for message in run()]


def test_e013_a_bus_whose_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "nats", None)
    monkeypatch.delitem(sys.modules, "realtime.delivery.bus.nats", raising=False)
    [(id, says)] = find(BUS="nats", NATS_URL="nats://one")
    assert id == "realtime.E013"
    assert "nats" in says


def test_e020_nats_without_a_server():
    assert find(BUS="nats", NATS_URL="nats://one") == []
    [(id, says)] = find(BUS="nats")
    assert (id, "NATS_URL names no server" in says) == ("realtime.E020", True)


@pytest.mark.parametrize("url", ["", "http://one", "redis://user:se/cret@one"])
def test_e020_redis_without_a_server(url):
    assert find(BUS="redis", REDIS_BUS_URL="redis://one") == []
    [(id, says)] = find(BUS="redis", REDIS_BUS_URL=url)
    assert (id, "REDIS_BUS_URL is none of redis://" in says) == ("realtime.E020", True)
    assert "cret" not in says


@pytest.mark.parametrize("name", ["NATS_URL", "REDIS_BUS_URL"])
def test_e003_does_not_say_what_may_be_a_password(name):
    [(id, says)] = find(**{name: ["nats://user:secret@one"]})
    assert id == "realtime.E003"
    assert "secret" not in says


@pytest.mark.parametrize(("enabled", "found"), [("yes", ["realtime.W014"]), ("no", [])])
@pytest.mark.parametrize("is_dict", [True, False])
def test_w014_a_layer_on_a_cluster(enabled, found, is_dict, monkeypatch):
    monkeypatch.setattr(checks, "CLUSTER_SECONDS", 20)  # for a machine that stands still
    server = ValkeyNode("--cluster-enabled", enabled)
    try:
        host = {"address": server.url} if is_dict else server.url
        config = {**KEYS, "hosts": [host, ("localhost", 6379)]}
        layers = {"default": {**REDIS["default"], "CONFIG": config}}
        assert ids(CHANNEL_LAYERS=layers) == found
        server.kill()
        assert ids(CHANNEL_LAYERS=layers) == []
    finally:
        server.stop()
