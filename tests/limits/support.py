"""Clients without a server, and whether one gets a connection."""

from types import SimpleNamespace
from typing import Any

import websockets

from realtime.access.identity import ANONYMOUS, Identity
from realtime.limits.client import Client

from ..support.clients import connect


def user(pk: int = 1) -> Any:
    return SimpleNamespace(pk=pk, is_authenticated=True)


def by_session(pk: int = 1, host: str = "192.0.2.1") -> Client:
    return Client(Identity(user(pk), "session", f"of {pk}"), {"client": (host, 1)})


def by_token(key: str, host: str = "192.0.2.1") -> Client:
    return Client(Identity(user(), "token", key), {"client": (host, 1)})


def anonymous(host: str | None) -> Client:
    return Client(ANONYMOUS, {"client": host and (host, 1)})


async def opens(url: str) -> bool:
    """Return whether a WebSocket is opened."""
    try:
        async with connect(url):
            return True
    except websockets.InvalidStatus:
        return False
