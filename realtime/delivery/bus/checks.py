"""System checks of the bus: that it works, reaches the other workers, and nobody else."""

import os
from typing import Any, Final

from channels.layers import get_channel_layer
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning
from django.utils.module_loading import import_string

from ...conf import settings
from ...server.workers import WORKERS_VARIABLE
from .base import BUSES, bus_class

CLUSTER_SECONDS: Final = 1.0  # that a server is given to say whether it is of a cluster
EXTRA: Final = "'django-realtime-port[redis]'"
KEYS: Final = "symmetric_encryption_keys"  # of both layers of channels_redis


def check_layer(**kwargs: Any) -> list[CheckMessage]:
    """Report a channel layer that does not reach the other workers, or none at all."""
    alias = settings.CHANNEL_LAYER
    if settings.BUS in BUSES:
        return []
    if missing := _missing_backend(alias):
        return [missing]
    layers = getattr(django_settings, "CHANNEL_LAYERS", {})
    workers = int(os.environ.get(WORKERS_VARIABLE, "1"))
    backend = layers.get(alias, {}).get("BACKEND", "")
    if workers > 1 and settings.BUS == "memory":
        message = f"{workers} workers, and BUS is 'memory', which does not leave the process."
    elif alias not in layers and workers > 1:
        message = f"{workers} workers, and CHANNEL_LAYERS has no {alias!r}."
    elif backend.endswith("InMemoryChannelLayer") and workers > 1:
        message = f"{workers} workers, and a channel layer that does not leave the process."
    else:
        return []
    hint = (
        'Give CHANNEL_LAYERS a RedisPubSubChannelLayer, or set REALTIME["BUS"]; '
        "`serve --workers N` does not start before."
    )
    return [Error(message, hint=hint, id="realtime.E004")]


def check_bus(**kwargs: Any) -> list[CheckMessage]:
    """Report a bus whose packages, settings or server are not those it needs."""
    try:
        own = bus_class()
    except ImportError as error:
        message = f"REALTIME['BUS'] = {settings.BUS!r} can't be imported: {error}"
        hint = f"pip install 'django-realtime-port[{settings.BUS}]', or name another BUS."
        return [Error(message, hint=hint, id="realtime.E013")]
    return [] if own is None else own.check()


def check_layer_timeout(**kwargs: Any) -> list[CheckMessage]:
    """Report a client of Redis whose time-out is shorter than the layer's blocking read."""
    alias = settings.CHANNEL_LAYER
    layers = getattr(django_settings, "CHANNEL_LAYERS", {})
    if settings.BUS in BUSES or alias not in layers or _missing_backend(alias):
        return []
    layer = get_channel_layer(alias)
    if not hasattr(type(layer), "brpop_timeout"):  # channels_redis.core's alone
        return []
    waits = layer.brpop_timeout
    timeout = layer.create_pool(0).make_connection().socket_timeout
    if timeout is None or timeout > waits:
        return []
    message = (
        f"CHANNEL_LAYERS[{alias!r}]: Redis is asked to wait {waits} s for a message, and its "
        f"client gives up after {timeout} s: an idle layer looks broken."
    )
    hint = f'"hosts": [{{"address": "redis://...", "socket_timeout": {3 * waits}}}]'
    return [Warning(message, hint=hint, id="realtime.W006")]


def check_layer_keys(**kwargs: Any) -> list[CheckMessage]:
    """Report a layer over Redis without keys: whoever can write there forges events."""
    alias = settings.CHANNEL_LAYER
    layer = getattr(django_settings, "CHANNEL_LAYERS", {}).get(alias, {})
    is_redis = layer.get("BACKEND", "").startswith("channels_redis.")
    if settings.BUS in BUSES or not is_redis or has_keys(alias):
        return []
    message = (
        f"CHANNEL_LAYERS[{alias!r}] has no {KEYS}: whoever can write to Redis can forge events, "
        "and read them."
    )
    hint = (
        f'"CONFIG": {{"serializer_format": "aes-gcm", "{KEYS}": [SECRET_KEY], ...}}, '
        f"and pip install {EXTRA}."
    )
    return [Warning(message, hint=hint, id="realtime.W009")]


def check_layer_cluster(**kwargs: Any) -> list[CheckMessage]:
    """Report a channel layer over a cluster, which channels_redis does not know."""
    alias = settings.CHANNEL_LAYER
    layer = getattr(django_settings, "CHANNEL_LAYERS", {}).get(alias, {})
    if settings.BUS != "channels" or not layer.get("BACKEND", "").startswith("channels_redis."):
        return []
    hosts = layer.get("CONFIG", {}).get("hosts", [])
    addresses = [host.get("address") if isinstance(host, dict) else host for host in hosts]
    if not any(_is_cluster(address) for address in addresses if isinstance(address, str)):
        return []
    message = (
        f"CHANNEL_LAYERS[{alias!r}] is on a cluster of Redis, which channels_redis does not know: "
        "messages go to all of its nodes, or fail."
    )
    hint = 'REALTIME = {"BUS": "redis", "REDIS_BUS_URL": "redis+cluster://..."}'
    return [Warning(message, hint=hint, id="realtime.W014")]


def has_keys(alias: str) -> bool:
    """Return whether the layer encrypts, and so drops what others send."""
    layers = getattr(django_settings, "CHANNEL_LAYERS", {})
    return bool(layers.get(alias, {}).get("CONFIG", {}).get(KEYS))


def _missing_backend(alias: str) -> CheckMessage | None:
    layers = getattr(django_settings, "CHANNEL_LAYERS", {})
    backend = layers.get(alias, {}).get("BACKEND", "")
    try:
        if backend:
            import_string(backend)
    except ImportError as error:
        package = backend.partition(".")[0].replace("_", "-")
        if package == "channels-redis":
            package = EXTRA
        hint = f"pip install {package}, or name another BACKEND."
        message = f"CHANNEL_LAYERS[{alias!r}]: {backend!r} can't be imported: {error}"
        return Error(message, hint=hint, id="realtime.E010")
    return None


def _is_cluster(address: str) -> bool:
    try:
        from redis import Redis, RedisError
    except ImportError:  # of which another check tells
        return False
    limits = {"socket_timeout": CLUSTER_SECONDS, "socket_connect_timeout": CLUSTER_SECONDS}
    try:
        with Redis.from_url(address, **limits) as client:
            return bool(client.info("cluster")["cluster_enabled"])
    except (RedisError, OSError, ValueError, KeyError):  # it is for those that serve to say so
        return False


BUS_CHECKS: Final = (
    check_bus,
    check_layer,
    check_layer_timeout,
    check_layer_keys,
    check_layer_cluster,
)
