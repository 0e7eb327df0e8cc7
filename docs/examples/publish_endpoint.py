from django.core.asgi import get_asgi_application

http = get_asgi_application()  # first: it loads the apps that the imports below need

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

from realtime.http.publish_consumer import PublishEndpoint  # noqa: E402
from realtime.routing import websocket_urlpatterns  # noqa: E402

application = ProtocolTypeRouter(
    {"http": PublishEndpoint(http), "websocket": URLRouter(websocket_urlpatterns)}
)
