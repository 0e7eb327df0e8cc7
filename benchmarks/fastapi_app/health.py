"""Alive, and ready."""

import asyncio

from fastapi import APIRouter, HTTPException
from fastapi.responses import PlainTextResponse
from sqlalchemy import text

from .broker import client
from .database import Session

READY_SECONDS = 3.0

router = APIRouter()


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """The process answers."""
    return "ok\n"


@router.get("/readyz", response_class=PlainTextResponse)
async def readyz() -> str:
    """The database and Redis answer."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            async with Session() as session:
                await session.execute(text("SELECT 1"))
            await client.ping()
    except Exception as error:
        raise HTTPException(503, f"Not ready: {type(error).__name__}.") from error
    return "ready\n"
