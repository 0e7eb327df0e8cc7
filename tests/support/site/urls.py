"""The project's URLs, and views that only the tests need."""

import asyncio
import gc
import os
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from channels.layers import get_channel_layer
from django.conf import settings
from django.db import connections
from django.http import HttpRequest, JsonResponse
from django.urls import path

from project.urls import urlpatterns as project_urlpatterns
from realtime.access.connections import get_connections
from realtime.conf import settings as settings_of_realtime
from realtime.delivery.hub import running_hubs
from realtime.delivery.subscription import Subscription
from realtime.exceptions import NotAllowed
from realtime.http.requests import json_errors, require_user
from realtime.llm.slots import slots
from realtime.streaming.files import FileStreamResponse
from realtime.streaming.response import EventStreamResponse
from realtime.streaming.sources import open_file
from realtime.streaming.sse import encode_sse
from realtime.utils.threads import DATABASE

_DIGITS = re.compile("[0-9]+")  # of an executor's number
finished: list[str] = []  # sources whose `finally` has run


async def inside(request: HttpRequest) -> JsonResponse:
    """What the server process holds at this moment."""
    gc.collect()
    layer: Any = get_channel_layer()
    ours = asyncio.current_task()
    tasks = [task for task in asyncio.all_tasks() if task is not ours]
    return JsonResponse(
        {
            "tasks": Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks),
            "hubs": {
                topic: len(f.fanout) for hub in running_hubs() for topic, f in hub.feeds.items()
            },
            "groups": {name: len(members) for name, members in layer.groups.items()},
            "channels": len(layer.channels),
            "answers": slots.taken,
            "watched": len(get_connections().connections),
            "subscriptions": sum(isinstance(each, Subscription) for each in gc.get_objects()),
            "threads": Counter(_DIGITS.sub("", each.name) for each in threading.enumerate()),
            "files": len(os.listdir("/proc/self/fd")),
            "connections": sum(
                1 for each in gc.get_objects() if type(each).__name__ == "DatabaseWrapper"
            ),
            "here": len(connections.all(initialized_only=True)),
            "finished": finished,
            "pid": os.getpid(),
        }
    )


async def filled(request: HttpRequest) -> JsonResponse:
    """Connect each thread that the pool for events may have, as a busy hour would."""
    size = settings_of_realtime.DATABASE_THREADS
    together = threading.Barrier(size, timeout=20)

    def connect() -> None:
        together.wait()
        connections["default"].ensure_connection()

    await asyncio.gather(*(DATABASE.run(connect) for _ in range(size)))
    return JsonResponse({"threads": size})


async def collected(request: HttpRequest) -> JsonResponse:
    """What only the garbage collector would free of all that came since the last call, by type."""
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    found = Counter(f"{type(each).__module__}.{type(each).__name__}" for each in gc.garbage)
    gc.set_debug(0)
    gc.garbage.clear()
    gc.collect()
    if "last" in request.GET:
        gc.enable()
    return JsonResponse(found)


async def caller(request: HttpRequest) -> JsonResponse:
    """Whom Django takes for the client, and below which path it takes the site to be."""
    names = ("REMOTE_ADDR", "REMOTE_PORT", "SCRIPT_NAME")
    return JsonResponse({name: request.META.get(name, "") for name in names})


async def _ticking(name: str, interval: float, count: int, error: bool) -> AsyncIterator[bytes]:
    try:
        for number in range(count):
            yield encode_sse(str(number))
            await asyncio.sleep(interval)
        if error:
            raise RuntimeError("The source failed on purpose.")
    finally:
        finished.append(name)


async def ticking(request: HttpRequest) -> EventStreamResponse:
    """A stream over a site's own generator."""
    given = request.GET
    interval, count = float(given.get("interval", "0.05")), int(given.get("count", "3"))
    return EventStreamResponse(_ticking(given["name"], interval, count, "error" in given))


@json_errors("GET", "HEAD")
async def private(request: HttpRequest, name: str) -> FileStreamResponse:
    """A file that is alice's."""
    user = await require_user(request)
    if user.get_username() != "alice":
        raise NotAllowed("This is not yours.")
    return FileStreamResponse(request, await open_file(settings.FILES_DIR, name))


urlpatterns = [
    path("tests/inside", inside),
    path("tests/filled", filled),
    path("tests/collected", collected),
    path("tests/caller", caller),
    path("tests/private/<path:name>", private),
    path("tests/ticking", ticking),
    *project_urlpatterns,
]
