"""Include these at the site's root: `path("", include("realtime.urls"))`."""

from django.urls import path

from .http import health, metrics_view, views
from .http.views import websocket_only

__all__ = ["urlpatterns", "websocket_only"]

app_name = "realtime"

urlpatterns = [
    path("topics/<topic>/events", views.topic_view, name="topic"),
    path("topics/<topic>/history", views.history, name="history"),
    path("topics/<topic>/presence", views.presence, name="presence"),
    path("events", views.events_view, name="events"),
    path("ws", websocket_only),
    path("ws/topics/<topic>", websocket_only),
    path("realtime/tickets", views.tickets, name="tickets"),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", metrics_view.metrics, name="metrics"),
]
