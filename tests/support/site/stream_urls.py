"""Views that stream, for tests over real sockets."""

import asyncio
import io
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, Storage
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import path
from django.utils import timezone

from project.demo.models import Item
from realtime.streaming.csv_export import CSVResponse
from realtime.streaming.files import FileStreamResponse
from realtime.streaming.ndjson import NDJSONResponse, after_and_limit
from realtime.streaming.sources import Source, open_file, open_stored
from realtime.streaming.zip_export import ZipResponse, files_below

from ..contents import REMOTE
from .urls import finished
from .urls import urlpatterns as site_urlpatterns


async def _values(given: Any) -> AsyncIterator[Any]:
    try:
        for number in range(int(given.get("count", 3))):
            if number == int(given.get("fail", -1)):
                raise RuntimeError("The source failed on purpose.")
            text = str(time.monotonic()) if "stamp" in given else "x" * int(given.get("size", 0))
            yield {"n": number, "text": text}
            if "pause" in given:
                await asyncio.sleep(float(given["pause"]))
    finally:
        finished.append(given.get("name", "values"))


async def values(request: HttpRequest) -> NDJSONResponse:
    """An async source of a site's own."""
    return NDJSONResponse(_values(request.GET))


async def by_cursor(request: HttpRequest) -> NDJSONResponse:
    """In an order that needs a cursor."""
    return NDJSONResponse(Item.objects.order_by("-price"), fields=("id", "name", "uuid"))


def _row(item: Item) -> dict[str, Any]:
    if item.pk % 1000 == 0:
        raise ValueError("This row can't be shown, on purpose.")
    return {"id": item.pk}


async def by_row(request: HttpRequest) -> NDJSONResponse:
    """Instances, of which one fails."""
    return NDJSONResponse(Item.objects.all(), row=_row, **after_and_limit(request))


async def csv_by_cursor(request: HttpRequest) -> CSVResponse:
    """A table in an order that needs a cursor."""
    return CSVResponse(Item.objects.order_by("-price"), fields=("id", "name"))


async def zip_compressed(request: HttpRequest) -> ZipResponse:
    """An archive whose size nobody knows before."""
    return ZipResponse(await files_below(settings.FILES_DIR), compress=6)


class RemoteStorage(Storage):
    """Has no paths and no descriptors, only bytes from elsewhere."""

    def _open(self, name: str, mode: str = "rb") -> File:
        if name != "remote.bin":
            raise FileNotFoundError(name)
        return File(_Remote(REMOTE), name)

    def size(self, name: str) -> int:
        return len(REMOTE)

    def get_modified_time(self, name: str) -> Any:
        return timezone.make_aware(timezone.datetime(2025, 1, 1))


class _Remote(io.BytesIO):
    def close(self) -> None:
        if not self.closed:
            finished.append("remote")
        super().close()


async def stored(request: HttpRequest, kind: str, name: str) -> FileStreamResponse:
    """A file of a storage."""
    local = FileSystemStorage(settings.FILES_DIR)
    storage: Storage = RemoteStorage() if kind == "remote" else local
    return FileStreamResponse(request, await open_stored(storage, name))


class Unhurried(FileStreamResponse):
    """Without the kernel's help, as under a server that does not offer it."""

    def __init__(self, request: HttpRequest, source: Source) -> None:
        super().__init__(request, source)
        self._kernel = None


async def chunked(request: HttpRequest, name: str) -> FileStreamResponse:
    """A file by chunks."""
    return Unhurried(request, await open_file(settings.FILES_DIR, name))


async def wrapped(request: HttpRequest, name: str) -> FileStreamResponse:
    """A file whose body a middleware has put something around."""
    response = FileStreamResponse(request, await open_file(settings.FILES_DIR, name))
    inner = response.streaming_content

    async def around() -> AsyncIterator[bytes]:
        async for part in inner:
            yield part.swapcase()

    response.streaming_content = around()
    return response


async def truncating(request: HttpRequest, kind: str, name: str) -> HttpResponseBase:
    """A file that shrinks between the head and the body."""
    path = Path(settings.FILES_DIR, name)
    view = chunked if kind == "chunks" else FileStreamResponse
    if view is chunked:
        response = await chunked(request, name)
    else:
        response = FileStreamResponse(request, await open_file(settings.FILES_DIR, name))
    with path.open("r+b") as file:
        file.truncate(1000)
    return response


urlpatterns = [
    path("tests/values", values),
    path("tests/by-cursor", by_cursor),
    path("tests/by-row", by_row),
    path("tests/csv-by-cursor", csv_by_cursor),
    path("tests/zip-compressed", zip_compressed),
    path("tests/stored/<kind>/<name>", stored),
    path("tests/chunked/<name>", chunked),
    path("tests/wrapped/<name>", wrapped),
    path("tests/truncating/<kind>/<name>", truncating),
    *site_urlpatterns,
]
