"""The chapter's own sockets."""

from django.urls import path

from .authentication import ByCookie, ByMessage, ByQuery
from .echo import Echo, EchoBytes, EchoText
from .user import UserSocket

websocket_urlpatterns = [
    path("ws/echo", Echo.as_asgi()),
    path("ws/echo/text", EchoText.as_asgi()),
    path("ws/echo/bytes", EchoBytes.as_asgi()),
    path("ws/auth/query", ByQuery.as_asgi()),
    path("ws/auth/cookie", ByCookie.as_asgi()),
    path("ws/auth/message", ByMessage.as_asgi()),
    path("ws/user", UserSocket.as_asgi()),
]
