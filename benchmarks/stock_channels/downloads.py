"""Rows 13, 14 and 16: rows, files, bytes."""

import csv
import io
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import QuerySet
from django.http import FileResponse, Http404, HttpRequest, StreamingHttpResponse

from .models import Item

FIELDS = ("id", "name", "price", "created", "uuid")
PIECE = b"\0" * 65_536
PIECES_PER_MB = 16


async def items(request: HttpRequest) -> StreamingHttpResponse:
    """`?after=&limit=`: a line of JSON per item."""
    rows = Item.objects.filter(pk__gt=int(request.GET.get("after", 0))).order_by("pk")
    if "limit" in request.GET:
        rows = rows[: int(request.GET["limit"])]
    return StreamingHttpResponse(json_lines(rows), content_type="application/x-ndjson")


async def json_lines(rows: QuerySet[Item]) -> AsyncIterator[str]:
    """Row by row."""
    async for row in rows.values(*FIELDS).aiterator():
        yield json.dumps(row, cls=DjangoJSONEncoder) + "\n"


async def items_csv(request: HttpRequest) -> StreamingHttpResponse:
    """The table for a spreadsheet."""
    return StreamingHttpResponse(
        csv_lines(),
        content_type="text/csv",
        headers={"Content-Disposition": 'attachment; filename="items.csv"'},
    )


async def csv_lines() -> AsyncIterator[str]:
    """The names of the columns, then row by row."""
    yield csv_line(FIELDS)
    async for row in Item.objects.order_by("pk").values(*FIELDS).aiterator():
        yield csv_line(row.values())


def csv_line(row: Iterable[Any]) -> str:
    """A row."""
    line = io.StringIO()
    csv.writer(line).writerow(row)
    return line.getvalue()


def download(request: HttpRequest, name: str) -> FileResponse:
    """A file, by name."""
    path = settings.FILES_DIR / name
    if not path.is_file():
        raise Http404
    return FileResponse(path.open("rb"), as_attachment=True)


async def firehose(request: HttpRequest) -> StreamingHttpResponse:
    """`?mb=`: so many MiB, for staff."""
    if not (await request.auser()).is_staff:
        raise PermissionDenied
    pieces = int(request.GET["mb"]) * PIECES_PER_MB
    return StreamingHttpResponse(zeros(pieces), content_type="application/octet-stream")


async def zeros(pieces: int) -> AsyncIterator[bytes]:
    """In pieces."""
    for _ in range(pieces):
        yield PIECE
