"""Rows 1 to 5 and 9: what every WebSocket does here."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
from fastapi import WebSocket, WebSocketDisconnect

HEARTBEAT_SECONDS = 30.0
PING = '{"type":"ping"}'


@asynccontextmanager
async def accepted(websocket: WebSocket) -> AsyncIterator[None]:
    """Accept; the block ends when the other side has left."""
    await websocket.accept()
    with suppress(WebSocketDisconnect):
        yield


@asynccontextmanager
async def heartbeat(websocket: WebSocket) -> AsyncIterator[None]:
    """Send a ping that JavaScript can see every 30 s. (A peer that is gone without a word is found
    by the server's protocol pings.)"""
    task = asyncio.create_task(beat(websocket))
    try:
        yield
    finally:
        task.cancel()


async def beat(websocket: WebSocket) -> None:
    """Ping until there is nobody left."""
    with suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await websocket.send_text(PING)


async def frames(websocket: WebSocket) -> AsyncIterator[Any]:
    """What comes, text or bytes, until the other side leaves."""
    while (message := await websocket.receive())["type"] == "websocket.receive":
        text = message.get("text")
        yield message["bytes"] if text is None else text


async def messages(websocket: WebSocket) -> AsyncIterator[Any]:
    """The JSON that comes; what is no JSON is answered with an error."""
    while (message := await websocket.receive())["type"] == "websocket.receive":
        try:
            content = orjson.loads(message.get("text") or message.get("bytes") or b"")
        except orjson.JSONDecodeError:
            await send_error(websocket, "bad_message", "This is not JSON.")
        else:
            yield content


async def send(websocket: WebSocket, message: dict[str, Any], ref: Any = None) -> None:
    """Send JSON, with the `ref` of the request that it answers."""
    if ref is not None:
        message["ref"] = ref
    await websocket.send_text(orjson.dumps(message).decode())


async def send_error(websocket: WebSocket, code: str, detail: str, ref: Any = None) -> None:
    """Say what was wrong."""
    await send(websocket, {"type": "error", "code": code, "detail": detail}, ref)
