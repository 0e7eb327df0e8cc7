"""The WebSocket routes: `URLRouter([*websocket_urlpatterns, ..., not_found_route])`."""

from typing import Any, Final

from django.urls import path, re_path

from .websocket.not_found import not_found
from .websocket.topic_consumers import MultiplexConsumer, TopicConsumer

websocket_urlpatterns = [
    path("ws", MultiplexConsumer.as_asgi()),
    path("ws/topics/<topic>", TopicConsumer.as_asgi()),
]

NOT_FOUND: Any = not_found  # Django's annotation knows no ASGI applications
#: The last route: 404 for every other address, where Channels alone fails with a 500.
not_found_route: Final = re_path("", NOT_FOUND)
