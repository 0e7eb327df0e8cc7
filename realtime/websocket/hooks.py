"""What a consumer's class must not have.

Hooks that nothing would call, or can't await, and attributes whose values mean nothing.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final, get_args

from ..access.identity import EVERY_CREDENTIAL, Authentication
from .messages import Accepts

# Of Channels' consumers, and what stands in their place.
CHANNELS_HOOKS: Final = {
    "connect": "connected",
    "receive": "received",
    "receive_json": "received",
    "disconnect": "disconnected",
    "websocket_connect": "connected",
    "websocket_receive": "received",
    "websocket_disconnect": "disconnected",
}
AWAITED: Final = (
    *("prepare", "authorize", "connected", "received", "disconnected"),
    *("event", "reset", "presence", "lost_permission", "recheck", "fail"),
)


def _are_credentials(value: Any) -> bool:
    return isinstance(value, frozenset | set) and value <= EVERY_CREDENTIAL


def _are_names(value: Any) -> bool:
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
    return is_sequence and all(isinstance(each, str) for each in value)


# What tells whether the value of an attribute has a meaning, and which ones have.
ATTRIBUTES: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "authentication": (
        get_args(Authentication).__contains__,
        '"required", "message" or "optional"',
    ),
    "accepts": (get_args(Accepts).__contains__, '"json", "text" or "bytes"'),
    "credentials": (_are_credentials, 'a frozenset of "session", "header", "query", "ticket"'),
    "subprotocols": (_are_names, "a list of names, the preferred one first"),
}


def check_hooks(consumer: type[Any]) -> None:
    """Raise TypeError, with the remedy, for a class that would never be called as it is meant."""
    for name, ours in CHANNELS_HOOKS.items():
        if hasattr(consumer, name):
            raise TypeError(
                f"{consumer.__qualname__}.{name} would never be called: that is Channels' own. "
                f"Write `async def {ours}`."
            )
    for name, (has_meaning, remedy) in ATTRIBUTES.items():
        value = inspect.getattr_static(consumer, name, None)
        is_property = hasattr(value, "__get__")  # of each socket its own
        if hasattr(consumer, name) and not is_property and not has_meaning(value):
            raise TypeError(f"{consumer.__qualname__}.{name} is {value!r}: use {remedy}.")
    for name in AWAITED:
        hook = inspect.getattr_static(consumer, name, None)
        if inspect.isfunction(hook) and not inspect.iscoroutinefunction(inspect.unwrap(hook)):
            raise TypeError(
                f"{consumer.__qualname__}.{name} is awaited: write `async def {name}`, and what "
                "blocks in it through channels.db.database_sync_to_async."
            )
