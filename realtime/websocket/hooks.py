"""What a consumer's class must not have: hooks that nothing would call, or can't await."""

import inspect
from typing import Any, Final

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


def check_hooks(consumer: type[Any]) -> None:
    """Raise TypeError, with the remedy, for a class that would never be called as it is meant."""
    for name, ours in CHANNELS_HOOKS.items():
        if hasattr(consumer, name):
            raise TypeError(
                f"{consumer.__qualname__}.{name} would never be called: that is Channels' own. "
                f"Write `async def {ours}`."
            )
    for name in AWAITED:
        hook = inspect.getattr_static(consumer, name, None)
        if inspect.isfunction(hook) and not inspect.iscoroutinefunction(inspect.unwrap(hook)):
            raise TypeError(
                f"{consumer.__qualname__}.{name} is awaited: write `async def {name}`, and what "
                "blocks in it through channels.db.database_sync_to_async."
            )
