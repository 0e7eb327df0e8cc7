"""Which consumer is where."""

from django.urls import path

from .consumers import AuthMessage, Echo, EchoBytes, EchoText, SignedIn, Topic, UserSocket
from .tokens import QueryAuthMiddleware

websocket_urlpatterns = [
    path("ws/echo", Echo.as_asgi()),
    path("ws/echo/text", EchoText.as_asgi()),
    path("ws/echo/bytes", EchoBytes.as_asgi()),
    path("ws/auth/query", QueryAuthMiddleware(SignedIn.as_asgi())),
    path("ws/auth/cookie", SignedIn.as_asgi()),
    path("ws/auth/message", AuthMessage.as_asgi()),
    path("ws/user", UserSocket.as_asgi()),
    path("ws/topics/<topic>", Topic.as_asgi()),
]
