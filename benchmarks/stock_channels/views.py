"""Publishing by POST, reading by GET."""

import json
from collections.abc import AsyncIterator

from channels.layers import get_channel_layer
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt


@csrf_exempt
async def events(request: HttpRequest, topic: str) -> HttpResponseBase:
    """Send the body to the topic's group, or stream what is sent to it."""
    if request.method == "POST":
        event = {"type": "topic.event", "topic": topic, "data": json.loads(request.body)}
        await get_channel_layer().group_send(topic, event)
        return JsonResponse({"topic": topic}, status=201)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(stream(topic), content_type="text/event-stream", headers=headers)


async def stream(topic: str) -> AsyncIterator[str]:
    """Server-sent events; no keepalive and no resume."""
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(topic, channel)
    try:
        yield ": welcome\n\n"
        while True:
            event = await layer.receive(channel)
            yield f"data: {json.dumps(event['data'])}\n\n"
    finally:
        await layer.group_discard(topic, channel)
