"""The demo's pages."""

from django.urls import path

from realtime.urls import websocket_only

from . import chat, downloads, firehose, items, progress, views

urlpatterns = [
    path("", views.page, name="demo"),
    path("stream/items", items.items, name="demo-items"),
    path("download/<name>", downloads.download, name="demo-download"),
    path("export/items.csv", downloads.items_csv, name="demo-items-csv"),
    path("export/files.zip", downloads.files_zip, name="demo-files-zip"),
    path("firehose", firehose.firehose, name="demo-firehose"),
    path("chat", chat.chat, name="demo-chat"),
    path("chat/<name>", chat.cancel, name="demo-chat-cancel"),
    path("progress", progress.progress, name="demo-progress"),
    path("ws/<path:name>", websocket_only),
    path("demo/sign-in/", views.sign_in, name="demo-sign-in"),
]
