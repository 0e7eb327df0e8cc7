"""Row 17: a long job on the request; who leaves has ended it."""

import asyncio
import json
import logging
import math
from collections.abc import AsyncGenerator
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from realtime import EventStreamResponse, encode_sse, error_response, json_errors, require_user

logger = logging.getLogger("project.demo.progress")

MAX_STEPS: Final = 10_000
MAX_INTERVAL: Final = 60.0  # seconds


@json_errors("GET")
async def progress(request: HttpRequest) -> HttpResponseBase:
    """`GET /progress?steps=N&interval=S`: a step each S seconds. It goes on after the
    `Last-Event-ID` of an EventSource that has lost its connection."""
    await require_user(request)
    steps = _number(request.GET.get("steps", "10"), 1, MAX_STEPS)
    interval = _number(request.GET.get("interval", "0.5"), 0, MAX_INTERVAL)
    done = _number(request.headers.get("Last-Event-ID", "0"), 0, MAX_STEPS)
    if steps is None or not steps.is_integer():
        return error_response(400, f"steps is a whole number from 1 to {MAX_STEPS}.")
    if interval is None:
        return error_response(400, f"interval is a number of seconds from 0 to {MAX_INTERVAL:g}.")
    if done is not None and done >= steps:
        return HttpResponse(status=204)  # it is done: an EventSource stays away now
    return EventStreamResponse(_work(int(done or 0), int(steps), interval))


async def _work(done: int, steps: int, interval: float) -> AsyncGenerator[bytes, None]:
    step = done
    try:
        for step in range(done + 1, steps + 1):
            await asyncio.sleep(interval)  # in place of work
            yield encode_sse(json.dumps({"step": step, "of": steps}), id=str(step))
        yield encode_sse(json.dumps({"step": step, "of": steps}), event="done", id=str(step))
    finally:
        # Runs within a second of the client's leaving: release here what the work holds.
        logger.info("The job of %d steps has ended at step %d.", steps, step)


def _number(text: str, least: float, most: float) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and least <= number <= most else None
