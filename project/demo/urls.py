"""The demo's pages."""

from django.urls import path

from . import chat, views

urlpatterns = [
    path("", views.page, name="demo"),
    path("chat", chat.chat, name="demo-chat"),
    path("chat/<name>", chat.cancel, name="demo-chat-cancel"),
    path("demo/sign-in/", views.sign_in, name="demo-sign-in"),
]
