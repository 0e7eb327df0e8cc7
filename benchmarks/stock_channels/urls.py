"""Which view is where."""

from django.urls import path

from .chat import chat
from .downloads import download, firehose, items, items_csv
from .events import events
from .progress import progress

urlpatterns = [
    path("topics/<topic>/events", events),
    path("stream/items", items),
    path("export/items.csv", items_csv),
    path("download/<name>", download),
    path("firehose", firehose),
    path("chat", chat),
    path("progress", progress),
]
