"""Rows 10 to 16: server-sent events, NDJSON, files."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Header, HTTPException, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from sqlalchemy import select

from .auth import CurrentUser, require
from .database import Item, Session
from .manager import QUEUE, manager

FILES = Path(os.environ.get("FILES_DIR", "files"))
SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
MIB = 2**20
ROWS = 500  # measured: more are no faster
COLUMNS = (Item.id, Item.name, Item.price, Item.created, Item.uuid)
LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z

router = APIRouter()


@router.post("/topics/{topic}/events", status_code=201)
async def publish(
    topic: str, request: Request, user: CurrentUser, type: str = "message"
) -> Response:
    """Publish the body."""
    require(user, topic, "publish")
    try:
        data = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise HTTPException(400, "This is not JSON.") from None
    event_id = await manager.publish(topic, data, type)
    return Response(orjson.dumps({"id": event_id}), 201, media_type="application/json")


@router.get("/topics/{topic}/events")
async def subscribe(
    topic: str, user: CurrentUser, last_event_id: Annotated[str | None, Header()] = None
) -> StreamingResponse:
    """One topic as server-sent events.

    Bytes, not FastAPI's own EventSourceResponse: that encodes each event for each client, and
    passes it through a task and a memory stream of its own.
    """
    require(user, topic, "read")
    return StreamingResponse(
        events(topic, last_event_id), media_type="text/event-stream", headers=SSE_HEADERS
    )


async def events(topic: str, last_event_id: str | None) -> AsyncIterator[bytes]:
    """What followed the last event, then what comes."""
    queue: asyncio.Queue[bytes] = asyncio.Queue(QUEUE)
    manager.queues[topic].add(queue)
    try:
        yield b"retry: 2000\n\n"
        if last_event_id is not None:
            for event in [e for e in manager.recent[topic] if e.id > last_event_id]:
                yield event.chunk
        while True:
            yield await queue.get()
    finally:
        manager.queues[topic].discard(queue)


@router.get("/stream/items")
async def items(after: int = 0, limit: int | None = None) -> StreamingResponse:
    """NDJSON from the database."""
    return StreamingResponse(item_lines(after, limit), media_type="application/x-ndjson")


async def item_lines(after: int, limit: int | None) -> AsyncIterator[bytes]:
    """A line per item, from a server-side cursor where there is one.

    Columns, not instances of Item: those cost two and a half times as much.
    """
    rows = select(*COLUMNS).where(Item.id > after).order_by(Item.id).limit(limit)
    async with Session() as session:
        result = await session.stream(rows.execution_options(yield_per=ROWS))
        async for page in result.partitions():
            yield b"".join([line(*row) for row in page])


def line(id: int, name: str, price: Decimal, created: datetime, uuid: UUID) -> bytes:
    """An item as it is sent."""
    item = {"id": id, "name": name, "price": str(price), "created": created, "uuid": uuid}
    return orjson.dumps(item, option=LINE)


@router.get("/download/{name}")
@router.head("/download/{name}")
def download(name: str) -> FileResponse:
    """A file, by name."""
    path = (FILES / name).resolve()
    if path.parent != FILES.resolve() or not path.is_file():
        raise HTTPException(404)
    return FileResponse(path, filename=name)


@router.get("/firehose")
async def firehose(mb: int, user: CurrentUser) -> StreamingResponse:
    """Bytes as fast as the client reads."""
    if user is None or not user.is_staff:
        raise HTTPException(401 if user is None else 403)
    return StreamingResponse(megabytes(mb), media_type="application/octet-stream")


async def megabytes(count: int) -> AsyncIterator[bytes]:
    """So many, in pieces of 64 KiB."""
    piece = b"\0" * 65_536
    for _ in range(count * MIB // len(piece)):
        yield piece
