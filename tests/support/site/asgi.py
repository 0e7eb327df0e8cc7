"""The project's application with sockets that only the tests need."""

import asyncio
from typing import Any

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path, re_path

http = get_asgi_application()

from project.demo.routing import websocket_urlpatterns  # noqa: E402
from realtime.exceptions import InvalidData, NotAllowed  # noqa: E402
from realtime.http.publish_consumer import PublishConsumer  # noqa: E402
from realtime.routing import not_found_route  # noqa: E402
from realtime.routing import websocket_urlpatterns as realtime_urlpatterns  # noqa: E402
from realtime.websocket.consumers import WebSocketConsumer  # noqa: E402

from .urls import finished  # noqa: E402


class Slow(WebSocketConsumer):
    """Takes its time for each message."""

    authentication = "optional"

    async def received(self, content: Any) -> None:
        try:
            await asyncio.sleep(content["sleep"])
            await self.send_json({"slept": content["sleep"]})
        except asyncio.CancelledError:
            finished.append(f"{content['name']} cancelled")
            raise

    async def disconnected(self, code: int) -> None:
        finished.append(f"slow {code}")


class Failing(WebSocketConsumer):
    """Fails in the ways that code can."""

    authentication = "optional"

    async def connected(self) -> None:
        if "connected" in self.scope["query_string"].decode():
            raise InvalidData("This can't be served.")

    async def authorize(self) -> None:
        if "denied" in self.scope["query_string"].decode():
            raise NotAllowed("Not for you.")

    async def received(self, content: Any) -> None:
        error = asyncio.CancelledError if content == "cancelled" else RuntimeError
        raise error("failed on purpose")


publish = PublishConsumer.as_asgi(application=http)
application = ProtocolTypeRouter(
    {
        "http": URLRouter([path("topics/<topic>/events", publish), re_path("", http)]),
        "websocket": URLRouter(
            [
                *realtime_urlpatterns,
                *websocket_urlpatterns,
                path("ws/tests/slow", Slow.as_asgi()),
                path("ws/tests/failing", Failing.as_asgi()),
                not_found_route,
            ]
        ),
    }
)
