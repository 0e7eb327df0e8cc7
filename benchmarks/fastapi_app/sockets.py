"""Rows 1 to 6: the WebSockets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from .auth import CurrentUser, may, user_of_token
from .database import User
from .manager import manager

router = APIRouter(prefix="/ws")


@router.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    """JSON in, `{"echo": <what came>}` out."""
    await websocket.accept()
    await echo_json(websocket)


async def echo_json(websocket: WebSocket) -> None:
    """Echo until the other side leaves."""
    try:
        while True:
            text = await websocket.receive_text()
            try:
                answer: dict[str, Any] = {"echo": orjson.loads(text)}
            except orjson.JSONDecodeError:
                answer = {"type": "error", "code": "bad_message", "detail": "This is not JSON."}
            await websocket.send_text(orjson.dumps(answer).decode())
    except WebSocketDisconnect:
        pass


@router.websocket("/echo/text")
async def echo_text(websocket: WebSocket) -> None:
    """The same text."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


@router.websocket("/echo/bytes")
async def echo_bytes(websocket: WebSocket) -> None:
    """The same bytes."""
    await websocket.accept()
    async for data in websocket.iter_bytes():
        await websocket.send_bytes(data)


@router.websocket("/auth/query")
@router.websocket("/auth/cookie")
async def auth_on_upgrade(websocket: WebSocket, user: CurrentUser) -> None:
    """A token in the query, or the session cookie."""
    if user is None:
        await websocket.close(4401)
        return
    await websocket.accept()
    await welcome(websocket, user)


@router.websocket("/auth/message")
async def auth_by_message(websocket: WebSocket) -> None:
    """The first message carries the token."""
    await websocket.accept()
    try:
        first = orjson.loads(await websocket.receive_text())
    except (WebSocketDisconnect, orjson.JSONDecodeError):
        first = None
    token = first.get("token") if isinstance(first, dict) else None
    user = await user_of_token(token) if isinstance(token, str) else None
    if user is None:
        await websocket.close(4401)
        return
    await welcome(websocket, user)


async def welcome(websocket: WebSocket, user: User) -> None:
    """Greet, then echo."""
    await websocket.send_json({"type": "welcome", "user": user.username})
    await echo_json(websocket)


@asynccontextmanager
async def registered(websocket: WebSocket, topic: str) -> AsyncIterator[None]:
    """Deliver the topic to this socket for the length of the block."""
    manager.sockets[topic].add(websocket)
    try:
        yield
    finally:
        manager.sockets[topic].discard(websocket)


@router.websocket("/user")
async def user_socket(websocket: WebSocket, user: CurrentUser) -> None:
    """What one of a user's sockets says reaches all of them."""
    if user is None:
        await websocket.close(4401)
        return
    await websocket.accept()
    topic = f"user.{user.id}"
    async with registered(websocket, topic):
        try:
            while True:
                message = orjson.loads(await websocket.receive_text())
                await manager.publish(topic, {"echo": message})
        except (WebSocketDisconnect, orjson.JSONDecodeError):
            pass


@router.websocket("/topics/{topic}")
async def topic_socket(websocket: WebSocket, topic: str, user: CurrentUser) -> None:
    """One topic."""
    if not may(user, topic, "read"):
        await websocket.close(4403)
        return
    await websocket.accept()
    async with registered(websocket, topic):
        try:
            while True:
                message = orjson.loads(await websocket.receive_text())
                if message.get("type") == "publish" and may(user, topic, "publish"):
                    kind = message.get("event", "message")
                    event_id = await manager.publish(topic, message["data"], kind)
                    await websocket.send_json({"type": "published", "id": event_id})
        except (WebSocketDisconnect, orjson.JSONDecodeError):
            pass
