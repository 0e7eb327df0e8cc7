"""Health: whether the process lives, and whether it may be sent requests."""

import asyncio
from typing import Final

from channels.layers import get_channel_layer
from django.http import HttpRequest, HttpResponse

from ..conf import settings
from ..delivery.hub import running_hubs
from ..eventlog import get_event_log
from ..server.extensions import server_state
from ..utils.asgi import scope_of
from .readiness import polled
from .requests import error_response, json_errors

READY_SECONDS: Final = 3.0  # what /readyz waits for the log, and for the layer


@json_errors("GET", "HEAD")
async def healthz(request: HttpRequest) -> HttpResponse:
    """Alive: the process answers."""
    headers = {"Cache-Control": "no-store"}
    return HttpResponse("ok\n", content_type="text/plain", headers=headers)


@json_errors("GET", "HEAD")
@polled
async def readyz(request: HttpRequest) -> HttpResponse:
    """Ready for traffic: an event can be stored and announced, the server is not draining."""
    if server_state(scope_of(request)).get("draining"):
        return error_response(503, "This server is shutting down.")
    try:
        async with asyncio.timeout(READY_SECONDS):
            await get_event_log().check_writable()
    except Exception as error:
        return error_response(503, f"The event log can't store: {type(error).__name__}.")
    if any(hub.bus.is_down for hub in running_hubs()):
        return error_response(503, "The channel layer does not answer.")
    try:
        layer = get_channel_layer(settings.CHANNEL_LAYER)
        if layer is not None:
            async with asyncio.timeout(READY_SECONDS):
                await layer.group_send("realtime.ready", {"type": "realtime.ready"})
    except Exception as error:
        return error_response(503, f"The channel layer does not answer: {type(error).__name__}.")
    return HttpResponse("ready\n", content_type="text/plain")
