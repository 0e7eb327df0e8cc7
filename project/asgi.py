"""The ASGI application: HTTP by Django, WebSockets by Channels."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
http = get_asgi_application()  # first: it loads the apps that the imports below need

from project.demo.routing import websocket_urlpatterns  # noqa: E402
from realtime.http.publish_consumer import PublishEndpoint  # noqa: E402
from realtime.routing import websocket_urlpatterns as realtime_urlpatterns  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": PublishEndpoint(http),  # optional: with an access token, publishing costs half
        "websocket": URLRouter([*realtime_urlpatterns, *websocket_urlpatterns]),
    }
)
