"""The layer through which a process listens: one of its own, whose connections it may close.

Channels makes one layer for the whole process. To close that one's connections would end a site's
own consumers, or leave them deaf.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from channels.layers import channel_layers, get_channel_layer

from ...conf import settings
from ...utils.aio import PerLoop

PUBSUB_MODULES: Final = ("channels_redis.pubsub", "channels_valkey.pubsub")


def listening_layer() -> Any:
    """Return the running loop's own layer; the process's where its connections can't be closed."""
    shared = get_channel_layer(settings.CHANNEL_LAYER)
    return shared if _close(shared) is None else _own.get()


async def close_connections(layer: Any) -> None:
    """Have the layer connect anew. What it had subscribed to may be forgotten."""
    if (close := _close(layer)) is not None:
        await close()


def _close(layer: Any) -> Callable[[], Awaitable[None]] | None:
    # `flush` of any other layer deletes what all processes have there.
    name = "flush" if type(layer).__module__ in PUBSUB_MODULES else "close_pools"
    close: Callable[[], Awaitable[None]] | None = getattr(layer, name, None)
    return close


_own: Final = PerLoop[Any](lambda: channel_layers.make_backend(settings.CHANNEL_LAYER))
