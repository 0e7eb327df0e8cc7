"""Row 10: publishing by POST, reading by GET."""

import json
from collections.abc import AsyncIterator

from channels.layers import get_channel_layer
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event_stream(source: AsyncIterator[str]) -> StreamingHttpResponse:
    """A response of server-sent events."""
    return StreamingHttpResponse(source, content_type="text/event-stream", headers=SSE_HEADERS)


def sse(data: object, event: str = "message") -> str:
    """A server-sent event."""
    name = "" if event == "message" else f"event: {event}\n"
    return f"{name}data: {json.dumps(data)}\n\n"


@csrf_exempt
async def events(request: HttpRequest, topic: str) -> HttpResponseBase:
    """Send the body to the topic's group, or stream what is sent to it."""
    if request.method == "POST":
        event = {"type": "topic.event", "topic": topic, "data": json.loads(request.body)}
        await get_channel_layer().group_send(topic, event)
        return JsonResponse({"topic": topic}, status=201)
    return event_stream(stream(topic))


async def stream(topic: str) -> AsyncIterator[str]:
    """Server-sent events; no keepalive and no resume."""
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(topic, channel)
    try:
        yield ": welcome\n\n"
        while True:
            event = await layer.receive(channel)
            yield sse(event["data"])
    finally:
        await layer.group_discard(topic, channel)
