"""Row 15: a language model's tokens, by OpenAI's SDK."""

from collections.abc import AsyncIterator
from functools import cache

from django.http import HttpRequest, StreamingHttpResponse
from django.views.decorators.http import require_GET
from openai import AsyncOpenAI

from .events import event_stream, sse

MODEL = "gpt-6-luna"

client = cache(AsyncOpenAI)  # one for all requests: it keeps connections


@require_GET
async def chat(request: HttpRequest) -> StreamingHttpResponse:
    """`?prompt=`: the answer."""
    return event_stream(tokens(request.GET["prompt"]))


async def tokens(prompt: str) -> AsyncIterator[str]:
    """An event per token, and `done`."""
    async with await client().chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": prompt}], stream=True
    ) as stream:
        async for chunk in stream:
            for choice in chunk.choices:
                if choice.delta.content:
                    yield sse({"token": choice.delta.content})
    yield sse({}, "done")
