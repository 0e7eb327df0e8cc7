"""An application that blocks the event loop."""

import asyncio
import time
from typing import Any


async def application(scope: Any, receive: Any, send: Any) -> None:
    await (consumer if scope["type"] == "websocket" else view)(scope, receive, send)


async def view(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/sleeps":
        time.sleep(0.8)  # in a view
    elif scope["path"] == "/awaits":
        await asyncio.sleep(0.4)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"awake"})


async def consumer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        if message.get("text") == "sleep":
            time.sleep(0.8)  # in a consumer
            await send({"type": "websocket.send", "text": "awake"})
