"""Row 14: files, and downloads that are made while they are sent."""

from django.conf import settings
from django.http import HttpRequest

from realtime.http.views import answers_errors
from realtime.streaming.exports import CSVResponse, ZipResponse, files_below
from realtime.streaming.files import FileStreamResponse, open_in

from .items import FIELDS
from .models import Item


@answers_errors("GET", "HEAD")
async def download(request: HttpRequest, name: str) -> FileStreamResponse:
    """`/download/<name>`: a file of FILES_DIR, in parts if asked for."""
    return FileStreamResponse(request, await open_in(settings.FILES_DIR, name))


@answers_errors("GET")
async def items_csv(request: HttpRequest) -> CSVResponse:
    """`GET /export/items.csv`: the table for a spreadsheet."""
    items = Item.objects.all()
    return CSVResponse(items, fields=FIELDS, filename="items.csv", escape_formulas=True)


@answers_errors("GET")
async def files_zip(request: HttpRequest) -> ZipResponse:
    """`GET /export/files.zip`: all of FILES_DIR in one archive."""
    return ZipResponse(await files_below(settings.FILES_DIR), filename="files.zip")
