"""Publishing by POST, reading by GET."""

from django.urls import path

from .views import events

urlpatterns = [path("topics/<topic>/events", events)]
