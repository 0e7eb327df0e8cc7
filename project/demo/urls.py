"""The demo's pages."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.page, name="demo"),
    path("demo/sign-in/", views.sign_in, name="demo-sign-in"),
]
