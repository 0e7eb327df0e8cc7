"""The application: `uvicorn benchmarks.fastapi_app.main:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from . import chat, sockets, streams
from .manager import manager


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Listen to Redis while we serve."""
    await manager.start()
    yield
    await manager.stop()


app = FastAPI(lifespan=lifespan)
app.include_router(sockets.router)
app.include_router(streams.router)
app.include_router(chat.router)


@app.get("/healthz")
async def healthz() -> str:
    """Alive."""
    return "ok"
