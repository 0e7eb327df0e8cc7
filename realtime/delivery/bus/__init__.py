"""The bus: what carries events from one process to the others."""

import logging

from channels.layers import InMemoryChannelLayer, get_channel_layer

from ...conf import settings
from .base import Bus, bus_class
from .channels import ChannelsBus
from .checks import has_keys
from .connections import listening_layer
from .memory import MemoryBus


def make_bus(logger: logging.Logger, *, is_listening: bool = False) -> Bus:
    """Return a new bus of the kind that `BUS` names."""
    if (own := bus_class()) is not None:
        return own(logger)
    layer = get_channel_layer(settings.CHANNEL_LAYER) if settings.BUS == "channels" else None
    if layer is None or type(layer) is InMemoryChannelLayer:
        return MemoryBus(logger)
    if is_listening:
        layer = listening_layer()
    return ChannelsBus(layer, logger, is_authentic=has_keys(settings.CHANNEL_LAYER))
