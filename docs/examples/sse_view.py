import asyncio

from django.db import transaction
from django.utils import timezone

from realtime import EventStreamResponse, encode_sse


@transaction.non_atomic_requests
async def clock(request):
    async def ticks():
        while True:
            yield encode_sse(timezone.now().isoformat())
            await asyncio.sleep(1)

    return EventStreamResponse(ticks())
