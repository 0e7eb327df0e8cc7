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


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        *(
            ("authentication", value, 'use "required", "message" or "optional".')
            for value in ("first", "session", None, False, ["required"])
        ),
        *(("accepts", value, 'use "json", "text" or "bytes".') for value in ("xml", "", bytes)),
        *(
            ("credentials", value, 'use a frozenset of "session", "header", "query", "ticket".')
            for value in ({"session", "cookie"}, ["session"], "session", None)
        ),
        *(
            ("subprotocols", value, "use a list of names, the preferred one first.")
            for value in ("v2", b"v2", {"v2"}, [2], None)
        ),
    ],
)
def test_attribute_with_a_value_of_no_meaning_is_refused(name, value, remedy):
    with pytest.raises(TypeError) as refused:
        type("Echo", (WebSocketConsumer,), {name: value})
    assert str(refused.value) == f"Echo.{name} is {value!r}: {remedy}"


@pytest.mark.parametrize(
    "attributes",
    [
        *({"authentication": value} for value in ("required", "message", "optional")),
        *({"accepts": value} for value in ("json", "text", "bytes")),
        *({"credentials": value} for value in (frozenset({"session"}), {"header", "query"}, set())),
        *({"subprotocols": value} for value in ([], ["v2", "v1"], ("v1",))),
        {"subprotocols": property(lambda self: self.scope["path"].split("/"))},
    ],
)
def test_attribute_with_a_meaning_is_one(attributes):
    assert type("Echo", (WebSocketConsumer,), attributes)
