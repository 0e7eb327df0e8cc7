"""Rows 10 to 12: topics as server-sent events, and what has been published to them as NDJSON."""

from collections.abc import AsyncIterator
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse

from . import history
from .auth import CurrentUser
from .database import User
from .events import EVENT_TYPE, sse
from .history import MAX_ID
from .manager import KEEPALIVE, manager
from .permissions import Topic, is_topic, require

MAX_BODY = 2**20
MAX_TOPICS = 100
RETRY = b"retry: 2000\n\n"
SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

router = APIRouter()


def after(
    after: Annotated[int | None, Query(ge=0, le=MAX_ID)] = None,
    last_event_id: Annotated[int | None, Header(ge=0, le=MAX_ID)] = None,
) -> int | None:
    """The last event the client has. A browser that reconnects asks for the same URL again, so the
    header is the newer one."""
    return after if last_event_id is None else last_event_id


After = Annotated[int | None, Depends(after)]
EventType = Annotated[str, Query(pattern=EVENT_TYPE)]


@router.post("/topics/{topic}/events", status_code=201)
async def publish(
    topic: Topic, request: Request, user: CurrentUser, type: EventType = "message"
) -> Response:
    """Publish the body."""
    require(user, topic, "publish")
    body = await request.body()
    if len(body) > MAX_BODY:
        raise HTTPException(413, f"An event has at most {MAX_BODY} bytes.")
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise HTTPException(400, "This is not JSON.") from None
    event_id = await history.publish(topic, data, type)
    return Response(orjson.dumps({"id": event_id}), 201, media_type="application/json")


@router.get("/topics/{topic}/events")
async def subscribe(topic: Topic, user: CurrentUser, after: After) -> StreamingResponse:
    """One topic as server-sent events.

    Bytes, not FastAPI's own EventSourceResponse: that encodes each event for each client, and
    passes it through a task and a memory stream of its own.
    """
    require(user, topic, "read")
    stream = events([topic], after, user, "chunk")
    return StreamingResponse(stream, media_type="text/event-stream", headers=SSE_HEADERS)


@router.get("/events")
async def subscribe_to_many(
    topic: Annotated[list[str], Query(min_length=1, max_length=MAX_TOPICS)],
    user: CurrentUser,
    after: After,
) -> StreamingResponse:
    """Several topics on one stream."""
    for name in topic:
        if not is_topic(name):
            raise HTTPException(400, f"{name!r} is no topic.")
        require(user, name, "read")
    stream = events(topic, after, user, "chunk_among")
    return StreamingResponse(stream, media_type="text/event-stream", headers=SSE_HEADERS)


async def events(
    topics: list[str], after: int | None, user: User | None, form: str
) -> AsyncIterator[bytes]:
    """What followed the last event, then what comes."""
    with manager.queue(topics, user) as queue:
        yield RETRY
        seen = 0
        if after is not None:
            past = await history.since(topics, after)
            seen = past.newest
            if not past.complete:
                yield sse({"topics": topics}, "reset", seen)
            for event in past.events:
                yield getattr(event, form)
        while (item := await queue.get()) is not None:
            if isinstance(item, bytes):
                yield KEEPALIVE
            elif item.id > seen:
                yield getattr(item, form)


@router.get("/topics/{topic}/history")
async def read(
    topic: Topic,
    user: CurrentUser,
    after: Annotated[int, Query(ge=0, le=MAX_ID)] = 0,
    limit: Annotated[int | None, Query(ge=0)] = None,
) -> StreamingResponse:
    """The kept events, oldest first."""
    require(user, topic, "read")
    return StreamingResponse(lines(topic, after, limit), media_type="application/x-ndjson")


async def lines(topic: str, after: int, limit: int | None) -> AsyncIterator[bytes]:
    """A line per event."""
    async for page in history.read(topic, after, limit):
        yield b"".join([event.line for event in page])
