"""HTTP by Django, WebSockets by Channels."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.stock_channels.settings")
django_application = get_asgi_application()

from .consumers import AuthCookie, Echo, Topic, UserSocket  # noqa: E402

websockets = [
    path("ws/echo", Echo.as_asgi()),
    path("ws/auth/cookie", AuthCookie.as_asgi()),
    path("ws/user", UserSocket.as_asgi()),
    path("ws/topics/<topic>", Topic.as_asgi()),
]
application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websockets))),
    }
)
