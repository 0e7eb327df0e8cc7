"""Row 14: files, and downloads that are made while they are sent."""

from django.conf import settings
from django.http import HttpRequest

from realtime import (
    CSVResponse,
    FileStreamResponse,
    ZipResponse,
    files_below,
    json_errors,
    open_file,
)

from .items import FIELDS
from .models import Item


@json_errors("GET", "HEAD")
async def download(request: HttpRequest, name: str) -> FileStreamResponse:
    """`/download/<name>`: a file of FILES_DIR, in parts if asked for."""
    return FileStreamResponse(request, await open_file(settings.FILES_DIR, name))


@json_errors("GET")
async def items_csv(request: HttpRequest) -> CSVResponse:
    """`GET /export/items.csv`: the table for a spreadsheet."""
    items = Item.objects.all()
    return CSVResponse(items, fields=FIELDS, filename="items.csv", escape_formulas=True)


@json_errors("GET")
async def files_zip(request: HttpRequest) -> ZipResponse:
    """`GET /export/files.zip`: all of FILES_DIR in one archive."""
    return ZipResponse(await files_below(settings.FILES_DIR), filename="files.zip")
