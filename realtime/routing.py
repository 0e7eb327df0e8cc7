"""The WebSocket routes: `URLRouter([*realtime.routing.websocket_urlpatterns, ...])`."""

from django.urls import path

from .websocket.topic_consumers import MultiplexConsumer, TopicConsumer

websocket_urlpatterns = [
    path("ws", MultiplexConsumer.as_asgi()),
    path("ws/topics/<topic>", TopicConsumer.as_asgi()),
]
