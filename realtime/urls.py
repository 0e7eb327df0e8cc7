"""Include these at the site's root: `path("", include("realtime.urls"))`."""

from django.urls import path

from .http import views

app_name = "realtime"

urlpatterns = [
    path("topics/<topic>/events", views.topic_view, name="topic"),
    path("topics/<topic>/history", views.history, name="history"),
    path("events", views.events, name="events"),
    path("realtime/tickets", views.tickets_view, name="tickets"),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
]
