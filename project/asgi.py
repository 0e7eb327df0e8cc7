"""The ASGI application: HTTP by Django, WebSockets by Channels."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path, re_path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
http = get_asgi_application()  # first: it loads the apps that the imports below need

from project.demo.routing import websocket_urlpatterns  # noqa: E402
from realtime.http.publish_consumer import PublishConsumer  # noqa: E402
from realtime.routing import not_found_route  # noqa: E402
from realtime.routing import websocket_urlpatterns as realtime_urlpatterns  # noqa: E402

# Optional: with an access token, publishing costs half.
publish = PublishConsumer.as_asgi(application=http)
application = ProtocolTypeRouter(
    {
        "http": URLRouter([path("topics/<topic>/events", publish), re_path("", http)]),
        "websocket": URLRouter([*realtime_urlpatterns, *websocket_urlpatterns, not_found_route]),
    }
)
