"""The application: `uvicorn benchmarks.fastapi_app.main:app`."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from redis.exceptions import RedisError

from . import (
    chat,
    echo,
    files,
    firehose,
    health,
    items,
    presence,
    progress,
    streams,
    tickets,
    topic_sockets,
)
from .broker import client
from .logs import redact
from .manager import manager
from .shutdown import on_sigterm

redact()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Listen to Redis while we serve.

    What has been imported stays: frozen, the garbage collector does not go over it again and again,
    which took a third of the time of a stream of rows.
    """
    gc.collect()
    gc.freeze()
    on_sigterm(manager.end_streams)
    await manager.start()
    sharing = asyncio.create_task(presence.presence.run())
    yield
    sharing.cancel()
    await manager.stop()
    await client.aclose()


app = FastAPI(lifespan=lifespan)
for module in (
    echo,
    topic_sockets,
    streams,
    presence,
    items,
    files,
    firehose,
    progress,
    chat,
    tickets,
    health,
):
    app.include_router(module.router)


@app.exception_handler(RedisError)
async def redis_is_away(request: Request, error: RedisError) -> JSONResponse:
    """Nothing can be published."""
    return JSONResponse({"detail": "Redis does not answer; try again."}, 503)
