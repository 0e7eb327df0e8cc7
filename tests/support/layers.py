"""Channel layers that a process without a hub meets."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from channels.layers import BaseChannelLayer
from django.test import override_settings


class RecordingLayer(BaseChannelLayer):
    """Takes what is sent."""

    sent: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        self.sent.append((group, message))


class FailingLayer(BaseChannelLayer):
    """Its server is gone."""

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        raise ConnectionError("no layer today")


class HangingLayer(BaseChannelLayer):
    """Its server does not answer."""

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        await asyncio.sleep(3_600)


def data_sent() -> list[str]:
    """The data of all events that a `RecordingLayer` has taken."""
    return [each["data"] for _, message in RecordingLayer.sent for each in message["events"]]


@contextmanager
def layer(kind: type[BaseChannelLayer] | None) -> Iterator[None]:
    """Configure this channel layer, or none."""
    layers = {"default": {"BACKEND": f"{__name__}.{kind.__name__}"}} if kind else {}
    RecordingLayer.sent.clear()
    with override_settings(CHANNEL_LAYERS=layers):
        yield
