import asyncio
import json

from django.db import transaction

from realtime import EventStreamResponse, encode_sse

released = []


@transaction.non_atomic_requests
async def resize(request):
    async def work():
        try:
            for step in range(1, 4):
                await asyncio.sleep(0.01)  # the work
                yield encode_sse(json.dumps({"step": step, "of": 3}))
            yield encode_sse("{}", event="done")
        finally:
            released.append(request.path)  # also when the client has left

    return EventStreamResponse(work())
