from django.core.asgi import get_asgi_application

http = get_asgi_application()  # first: it loads the apps that the imports below need

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from realtime.http.publish_consumer import PublishConsumer  # noqa: E402
from realtime.routing import websocket_urlpatterns  # noqa: E402

publish = PublishConsumer.as_asgi(application=http)
application = ProtocolTypeRouter(
    {
        "http": URLRouter([path("topics/<topic>/events", publish), re_path("", http)]),
        "websocket": URLRouter(websocket_urlpatterns),
    }
)
