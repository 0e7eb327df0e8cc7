"""Row 15: a language model's tokens on the request, by OpenAI's SDK."""

from collections.abc import AsyncIterator
from functools import cache

import orjson
from fastapi import APIRouter, HTTPException
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI

from .auth import CurrentUser
from .streams import SSE_HEADERS

MODEL = "gpt-6-luna"

router = APIRouter()


@cache
def client() -> AsyncOpenAI:
    """One for all requests: it keeps connections."""
    return AsyncOpenAI()


@router.get("/chat")
async def chat(prompt: str, user: CurrentUser) -> StreamingResponse:
    """Ask the model for whoever is signed in."""
    if user is None:
        raise HTTPException(401)
    return StreamingResponse(tokens(prompt), media_type="text/event-stream", headers=SSE_HEADERS)


async def tokens(prompt: str) -> AsyncIterator[bytes]:
    """An event per token, and `done`."""
    async with await client().chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": prompt}], stream=True
    ) as stream:
        async for chunk in stream:
            for choice in chunk.choices:
                if choice.delta.content:
                    yield b"data: " + orjson.dumps({"token": choice.delta.content}) + b"\n\n"
    yield b"event: done\ndata: {}\n\n"
