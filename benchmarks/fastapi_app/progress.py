"""Row 17: a long job on the request. Who leaves has ended it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from .auth import SignedIn

MAX_STEPS = 10_000

router = APIRouter()
logger = logging.getLogger(__name__)


@router.get("/progress", response_class=EventSourceResponse)
async def progress(
    user: SignedIn,
    steps: Annotated[int, Query(ge=1, le=MAX_STEPS)] = 10,
    interval: Annotated[float, Query(ge=0, le=60)] = 0.5,
    last_event_id: Annotated[int, Header(ge=0, le=MAX_STEPS)] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """A step each `interval` seconds, going on after the last one that the client has."""
    step = last_event_id
    try:
        for step in range(last_event_id + 1, steps + 1):
            await asyncio.sleep(interval)  # in place of work
            yield ServerSentEvent(data={"step": step, "of": steps}, id=str(step))
        yield ServerSentEvent(data={"step": steps, "of": steps}, event="done", id=str(steps))
    finally:
        logger.info("The job of %d steps has ended at step %d.", steps, step)
