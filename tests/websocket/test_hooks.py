"""`realtime.websocket.hooks`: a mistake is told when the class is made, not by silence."""

from functools import wraps
from typing import Any

import pytest
from channels.db import database_sync_to_async

from realtime.websocket.consumers import WebSocketConsumer
from realtime.websocket.hooks import AWAITED, CHANNELS_HOOKS
from realtime.websocket.topic_consumers import MultiplexConsumer


async def hook(self: Any, *args: Any) -> None:
    """A hook as it should be."""


def blocking(self: Any, *args: Any) -> None:
    """A hook as it is in a synchronous consumer."""


@pytest.mark.parametrize(("name", "ours"), CHANNELS_HOOKS.items())
@pytest.mark.parametrize("base", [WebSocketConsumer, MultiplexConsumer])
def test_hook_of_channels_is_refused_with_the_name_to_use(name, ours, base):
    with pytest.raises(TypeError, match=rf"Echo\.{name} would never .*async def {ours}`"):
        type("Echo", (base,), {name: hook})


def test_hook_of_a_mixin_is_refused_too():
    mixin = type("Mixin", (), {"receive_json": hook})
    with pytest.raises(TypeError, match="receive_json"):
        type("Echo", (mixin, WebSocketConsumer), {})


@pytest.mark.parametrize("name", AWAITED)
def test_method_that_can_not_be_awaited_is_refused(name):
    with pytest.raises(TypeError, match=rf"`async def {name}`.*database_sync_to_async"):
        type("Echo", (WebSocketConsumer,), {name: blocking})


def noted(function: Any) -> Any:
    @wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@pytest.mark.parametrize("function", [hook, noted(hook), database_sync_to_async(blocking)])
def test_what_can_be_awaited_is_a_hook(function):
    for name in AWAITED:
        assert type("Echo", (WebSocketConsumer,), {name: function})
