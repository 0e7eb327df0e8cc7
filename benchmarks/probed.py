"""Each contestant's application with a timer beside it, for the stall job alone.

`GET /longest-gap` answers with the longest time between two runs of a 1 ms timer, in seconds and
without that millisecond, since it was last asked. As a settings module it is our site's settings
with the application exchanged.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

INTERVAL = 0.001
PATH = "/longest-gap"


class Probed:
    """Wraps an ASGI application."""

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        self._application = application
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last = 0.0
        self._longest = 0.0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._last = time.perf_counter()
            self._tick()
        if scope["type"] == "http" and scope["path"] == PATH:
            body = str(self._longest).encode()
            self._longest = 0.0
            headers = [(b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await self._application(scope, receive, send)

    def _tick(self) -> None:
        assert self._loop is not None
        now = time.perf_counter()  # uvloop's own time stands still during a turn of the loop
        self._longest = max(self._longest, now - self._last - INTERVAL)
        self._last = now
        self._loop.call_later(INTERVAL, self._tick)


def __getattr__(name: str) -> Any:
    """`ours`, `fastapi` and `stock`, imported when asked for."""
    if name == "fastapi":
        from benchmarks.fastapi_app.main import app

        return Probed(app)
    if name == "stock":
        from benchmarks.stock_channels.asgi import application

        return Probed(application)
    if name == "ours":
        from project.asgi import application

        return Probed(application)
    raise AttributeError(name)


if os.environ.get("DJANGO_SETTINGS_MODULE") == __name__:
    from project.settings import *  # noqa: F403

    ASGI_APPLICATION = f"{__name__}.ours"
