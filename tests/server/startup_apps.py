"""An application with something to do before it serves."""

import asyncio
import threading
from typing import Any

from realtime.server import lifespan as startup

SEEN: list[str] = []


def fail() -> None:
    raise ZeroDivisionError


def look() -> None:
    thread = "main" if threading.current_thread() is threading.main_thread() else "other"
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        SEEN.append(f"{thread} thread, no loop")


startup.CALLBACKS.extend((fail, look))


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": ", ".join(SEEN).encode()})
