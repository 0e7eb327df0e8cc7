"""Rows 1 to 5: echoes of JSON, text and bytes, and three ways to say who is asking."""

import asyncio
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, HTTPException, WebSocket, WebSocketDisconnect

from .auth import user_by_cookie, user_by_query
from .credentials import user_of_token
from .database import User
from .sockets import accepted, frames, messages, send, send_error

FIRST_MESSAGE_SECONDS = 10.0
NOT_SIGNED_IN = 4401
NO_AUTH_IN_TIME = 4408

router = APIRouter(prefix="/ws")


@router.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    """JSON in, `{"echo": <what came>}` out."""
    async with accepted(websocket):
        await echo_json(websocket)


async def echo_json(websocket: WebSocket) -> None:
    """Echo until the other side leaves."""
    async for content in messages(websocket):
        await websocket.send_text(orjson.dumps({"echo": content}).decode())


@router.websocket("/echo/text")
async def echo_text(websocket: WebSocket) -> None:
    """The same text."""
    async with accepted(websocket):
        async for frame in frames(websocket):
            if isinstance(frame, str):
                await websocket.send_text(frame)
            else:
                await send_error(websocket, "bad_message", "Send text.")


@router.websocket("/echo/bytes")
async def echo_bytes(websocket: WebSocket) -> None:
    """The same bytes."""
    async with accepted(websocket):
        async for frame in frames(websocket):
            if isinstance(frame, bytes):
                await websocket.send_bytes(frame)
            else:
                await send_error(websocket, "bad_message", "Send bytes.")


@router.websocket("/auth/query")
async def auth_by_query(
    websocket: WebSocket, user: Annotated[User | None, Depends(user_by_query)]
) -> None:
    """A token or a ticket in the URL."""
    await welcome_on_upgrade(websocket, user)


@router.websocket("/auth/cookie")
async def auth_by_cookie(
    websocket: WebSocket, user: Annotated[User | None, Depends(user_by_cookie)]
) -> None:
    """The session cookie."""
    await welcome_on_upgrade(websocket, user)


async def welcome_on_upgrade(websocket: WebSocket, user: User | None) -> None:
    """Greet who is known. Who is not gets a status: a close code before the socket is open would
    be a bare 403."""
    if user is None:
        raise HTTPException(401, "Sign in, or send an access token.")
    async with accepted(websocket):
        await welcome(websocket, user)


@router.websocket("/auth/message")
async def auth_by_message(websocket: WebSocket) -> None:
    """The first message carries the token, and has to come in time."""
    async with accepted(websocket):
        try:
            async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
                first = await websocket.receive()
        except TimeoutError:
            await websocket.close(NO_AUTH_IN_TIME)
            return
        if first["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        user = await user_of_token(token_in(first.get("text")))
        if user is None:
            await websocket.close(NOT_SIGNED_IN)
            return
        await welcome(websocket, user)


def token_in(text: str | None) -> str:
    """The token in `{"token": "..."}`; "" if there is none."""
    try:
        token = orjson.loads(text or "")["token"]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return ""
    return token if isinstance(token, str) else ""


async def welcome(websocket: WebSocket, user: User) -> None:
    """Greet, then echo."""
    await send(websocket, {"type": "welcome", "user": user.username})
    await echo_json(websocket)
