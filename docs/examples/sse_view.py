import asyncio

from django.utils import timezone

from realtime.streaming.response import EventStreamResponse
from realtime.streaming.sse import encode_sse


async def clock(request):
    async def ticks():
        while True:
            yield encode_sse(timezone.now().isoformat())
            await asyncio.sleep(1)

    return EventStreamResponse(ticks())
