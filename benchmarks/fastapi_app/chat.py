"""Row 15: an answer on the request, or on a topic that outlives it."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, StringConstraints

from .auth import SignedIn
from .events import sse
from .history import publish
from .model import ModelError, tokens
from .streams import SSE_HEADERS

FAILED = {"detail": "The model failed to answer; ask again."}
KEPT = 20_000  # tokens of an answer
MAX_PROMPT = 100_000

router = APIRouter()
logger = logging.getLogger(__name__)
answering: set[asyncio.Task[None]] = set()


class Question(BaseModel):
    """What is asked."""

    prompt: Annotated[str, StringConstraints(min_length=1, max_length=MAX_PROMPT)]


class Chat(BaseModel):
    """Where the answer comes."""

    topic: str
    events: str


@router.get("/chat")
async def chat(
    prompt: Annotated[str, Query(min_length=1, max_length=MAX_PROMPT)], user: SignedIn
) -> StreamingResponse:
    """The answer on this request: who leaves ends it, at the provider too."""
    return StreamingResponse(answer(prompt), media_type="text/event-stream", headers=SSE_HEADERS)


async def answer(prompt: str) -> AsyncIterator[bytes]:
    """An event per token, and `done`."""
    try:
        async with aclosing(tokens(prompt)) as texts:
            async for text in texts:
                yield sse({"token": text})
        yield sse({}, "done")
    except ModelError:
        logger.exception("The model failed")
        yield sse(FAILED, "error")


@router.post("/chat", status_code=201)
async def begin(question: Question, user: SignedIn) -> Chat:
    """The answer as events of a topic, which goes on while nobody reads, and can be read again."""
    topic = f"user.{user.id}.chat.{secrets.token_hex(8)}"
    task = asyncio.create_task(publish_answer(topic, question.prompt))
    answering.add(task)
    task.add_done_callback(answering.discard)
    return Chat(topic=topic, events=f"/topics/{topic}/events?after=0")


async def publish_answer(topic: str, prompt: str) -> None:
    """An event per token, and `done`."""
    try:
        async with aclosing(tokens(prompt)) as texts:
            async for text in texts:
                await publish(topic, {"token": text}, kept=KEPT)
        await publish(topic, {}, "done", kept=KEPT)
    except ModelError:
        logger.exception("The model failed")
        await publish(topic, FAILED, "error", kept=KEPT)
