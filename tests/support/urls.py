"""What the app asks of a site's URLs."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("", include("realtime.urls"))]
