"""A Django site without a single URL."""

from django.conf import settings
from django.core.asgi import get_asgi_application

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])
urlpatterns: list[object] = []
application = get_asgi_application()
