import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path, re_path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
http = get_asgi_application()  # first: it loads the apps that the imports below need

from realtime.http.publish_consumer import PublishConsumer  # noqa: E402
from realtime.routing import not_found_route, websocket_urlpatterns  # noqa: E402

publish = PublishConsumer.as_asgi(application=http)
application = ProtocolTypeRouter(
    {
        "http": URLRouter([path("topics/<topic>/events", publish), re_path("", http)]),
        "websocket": URLRouter([*websocket_urlpatterns, not_found_route]),
    }
)
