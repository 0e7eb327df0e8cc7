"""Rows 6 and 7: sockets that listen to a user, a topic, or many topics."""

from typing import Annotated

from fastapi import APIRouter, Query, WebSocket

from .auth import CurrentUser, SignedIn
from .history import MAX_ID, publish
from .manager import manager
from .permissions import Topic, require
from .sockets import accepted, heartbeat, messages, send
from .topic_session import TopicSession

router = APIRouter(prefix="/ws")


@router.websocket("/user")
async def user_socket(websocket: WebSocket, user: SignedIn) -> None:
    """What one of a user's sockets says reaches all of them."""
    topic = f"user.{user.id}"
    async with accepted(websocket), heartbeat(websocket):
        with manager.joined_by_user(topic, websocket, user):
            async for content in messages(websocket):
                if content != {"type": "pong"}:
                    await publish(topic, {"echo": content})


@router.websocket("/topics/{topic}")
async def topic_socket(
    websocket: WebSocket,
    topic: Topic,
    user: CurrentUser,
    after: Annotated[int | None, Query(ge=0, le=MAX_ID)] = None,
) -> None:
    """One topic."""
    require(user, topic, "read")
    session = TopicSession(websocket, user)

    async def say_if_lost(event_id: int, recovered: bool) -> None:
        if not recovered:
            await send(websocket, {"type": "reset", "topic": topic, "id": str(event_id)})

    async with accepted(websocket), heartbeat(websocket):
        try:
            if after is None:
                session.join(topic)
            else:
                await session.replay(topic, after, say_if_lost)
            async for content in messages(websocket):
                await session.handle(content, topic)
        finally:
            session.leave()


@router.websocket("")
async def many_topics(websocket: WebSocket, user: CurrentUser) -> None:
    """The topics that the client asks for."""
    session = TopicSession(websocket, user)
    async with accepted(websocket), heartbeat(websocket):
        try:
            async for content in messages(websocket):
                await session.handle(content)
        finally:
            session.leave()
