"""Row 17: a long job on the request."""

import asyncio
from collections.abc import AsyncIterator

from django.http import HttpRequest, StreamingHttpResponse

from .events import event_stream, sse


async def progress(request: HttpRequest) -> StreamingHttpResponse:
    """`?steps=&interval=`: a step each `interval` seconds."""
    return event_stream(work(int(request.GET["steps"]), float(request.GET["interval"])))


async def work(steps: int, interval: float) -> AsyncIterator[str]:
    """An event per step."""
    for step in range(1, steps + 1):
        await asyncio.sleep(interval)  # in place of work
        yield sse({"step": step, "of": steps})
